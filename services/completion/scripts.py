"""What a shell runs at start to complete a command: a function that asks the command itself.

Invariant: a script has no list of subcommands or flags, so that it fits every version.
Sources: bash(1) "Programmable Completion"; zshcompsys(1); fish's `complete`. bash's function splits the line itself,
since bash breaks words at `=`, and works without the package bash-completion.
"""

from __future__ import annotations

SHELLS = ("bash", "zsh", "fish")

_BASH = r"""# bash completion of @NAME@: source <(@NAME@ completion bash)
__@NAME@_complete() {
    local line=${COMP_LINE:0:COMP_POINT} answer directive current text
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    COMPREPLY=()
    answer=$("${words[0]/#\~\//$HOME/}" __complete "${words[@]:1}" 2>/dev/null) || return 0
    directive=${answer##*:}
    current=${words[${#words[@]} - 1]}
    if [[ $directive != 0 ]] && type compopt &>/dev/null; then
        compopt +o default
    fi
    while IFS=$'\t' read -r text _; do
        [[ $text == :* ]] && continue
        # What readline replaces begins after the last "=".
        [[ $current == *=* ]] && text=${text#"${current%=*}="}
        [[ -n $text ]] && COMPREPLY+=("$text ")
    done <<<"$answer"
    type compopt &>/dev/null && compopt -o nospace
    return 0
}
complete -o default -F __@NAME@_complete @NAME@
"""

_ZSH = r"""#compdef @NAME@
# zsh completion of @NAME@: @NAME@ completion zsh > "${fpath[1]}/_@NAME@", or source <(@NAME@ completion zsh)
_@NAME@() {
    local -a answer described
    local line text directive
    answer=("${(@f)$(${(Q)words[1]} __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    directive=${answer[-1]}
    answer[-1]=()
    for line in "${answer[@]}"; do
        [[ -n $line ]] || continue
        text=${${line%%$'\t'*}//:/\\:}
        [[ $line == *$'\t'* ]] && text+=:${line#*$'\t'}
        described+=("$text")
    done
    if (( ${#described} )); then
        _describe -V @NAME@ described
    elif [[ $directive == ":0" ]]; then
        compset -P '--*='
        _files
    fi
}
if [[ $funcstack[1] == _@NAME@ ]]; then
    _@NAME@ "$@"
else
    compdef _@NAME@ @NAME@
fi
"""

_FISH = r"""# fish completion of @NAME@: @NAME@ completion fish > ~/.config/fish/completions/@NAME@.fish
function __@NAME@_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
    or return
    set -l directive $answer[-1]
    set -e answer[-1]
    if test (count $answer) -gt 0
        printf '%s\n' $answer
    else if test "$directive" = ":0"
        set -l before (string match -r -- '^--[^=]*=' "$current")
        for path in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' "$current"))
            echo "$before$path"
        end
    end
end
complete -c @NAME@ -e
complete -c @NAME@ -f -a '(__@NAME@_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str, name: str) -> str:
    """Return the script for one of SHELLS; `name` is the command on PATH."""
    return _SCRIPTS[shell].replace("@NAME@", name)
