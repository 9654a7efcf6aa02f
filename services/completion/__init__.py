"""What a shell needs to complete `groundwork`, with names that the cluster has.

Reading order: `words` (what may follow on a command line: pure), `names` (names from cluster and kubeconfig),
`scripts` (what each shell runs), `command` (the subcommand, and what the scripts ask).

The scripts hold no list of flags: they ask `groundwork __complete`, in the protocol that kubectl speaks with plugins,
so that one answer serves bash, zsh, fish and kubectl, and no script is older than the command.
"""
