"""A preset made ready for use: its selectors as functions, its values parsed, its problems told.

Responsible for: everything about one preset alone, done once when it changes rather than for every pod.
Invariants: a preset with problems selects no pod; what is wrong but has an obvious meaning is a note, and works. The
pieces of JSON here are shared by every patch: nobody changes them.
Must not know: other presets, pods, what is known of the cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from services.podpreset import api, cabundle, marks, selectors, shapes
from services.podpreset.api import PresetKey
from services.podpreset.sameness import same
from services.proxyenv import lists, names
from services.proxyenv.complete import NAMES as ENTRY_NAMES
from services.runtime.kube.nesting import deeper
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from services.podpreset.api import EnvMetadata, EnvVar, PodPresetSpec
    from services.podpreset.selectors import Match
    from services.runtime.kube.objects import KubeObject

Json = dict[str, Any]

_LEVELS = 64
"""Levels of a spec. No volume of a pod has twenty; comparing what has hundreds is more than Python can do."""
_SPECS = {api.CLUSTER_KIND: api.ClusterPodPresetSpec, api.NAMESPACED_KIND: api.PodPresetSpec}


class Variable(NamedTuple):
    """A variable as a preset writes it. `items` is what `value` holds when it is a list (`multi`)."""

    name: str
    value: str
    value_from: Json | None
    multi: bool
    items: lists.Items
    strategy: str
    force: bool
    strict: bool
    """Any other value is a conflict that leaves the whole pod alone."""
    collapsed: bool = False
    """Whether it names other items beside `*`."""
    text: str | None = None
    """What `value` was before it was brought into normal form; None where it is no longer what the preset wrote."""


class Source(NamedTuple):
    """An envFrom; `key` is what tells two of them apart."""

    key: tuple[str, str, str]
    label: str
    json: Json
    replaces: bool


class Volume(NamedTuple):
    """A volume of the pod; `known` is that of it which every API server keeps."""

    name: str
    json: Json
    replaces: bool
    known: Json


class Mount(NamedTuple):
    """A mount in a container; `path` without a slash at its end, `known` as that of a volume."""

    volume: str
    path: str
    json: Json
    replaces: bool
    known: Json


class Preset:
    """A compiled preset. Two are the same only if they are one object."""

    __slots__ = (
        "annotation",
        "ca",
        "hash",
        "include",
        "key",
        "layer",
        "matches_namespace",
        "matches_pod",
        "mounts",
        "notes",
        "order",
        "policy",
        "problems",
        "selects",
        "sources",
        "spec",
        "variables",
        "volumes",
    )

    def __init__(self, key: PresetKey, spec: PodPresetSpec, problems: tuple[str, ...] = ()) -> None:
        found = list(problems)
        notes: list[str] = []
        self.key = key
        self.spec = spec
        self.policy = spec.conflict_policy
        narrow = key.kind == api.NAMESPACED_KIND
        self.layer = (narrow, spec.priority)
        """Presets of one layer conflict; of two layers the greater is narrower."""
        self.order = (*self.layer, key.name)
        self.variables = tuple(_variables(spec, found, notes))
        self.sources = tuple(_sources(spec, found))
        volumes = _volumes(spec, found, notes)
        self.volumes = tuple(volumes.values())
        self.mounts = tuple(_mounts(spec, volumes, found, notes).values())
        self.ca = spec.ca_bundle is not None
        if spec.ca_bundle is not None:
            self._add_ca_bundle(spec.ca_bundle, found)
        self.include = spec.no_proxy.include if spec.no_proxy is not None else ()
        """Names of entries that complete its NO_PROXY."""
        found += [
            f"spec.noProxy.include: '{name}', expected one of {', '.join(ENTRY_NAMES)}"
            for name in self.include
            if name not in ENTRY_NAMES
        ]
        if self.include and any(names.is_no_proxy(one.name) and one.value_from is not None for one in self.variables):
            notes.append("spec.noProxy: NO_PROXY has a valueFrom, to which nothing can be added")
        found += _policy_problems(spec)
        if not (self.variables or self.sources or self.volumes or self.mounts or self.include or found):
            found.append("spec: must specify at least one of env, envFrom, volumes, volumeMounts, caBundle and noProxy")
        pods = selectors.compile_selector(spec.selector, "spec.selector")
        spaces = selectors.compile_selector(getattr(spec, "namespace_selector", None), "spec.namespaceSelector")
        self.problems = (*found, *pods.problems, *spaces.problems)
        """Why it cannot be applied, a sentence each that begins with the field; empty for a good one."""
        self.notes = tuple(notes)
        """What its author should know though it works."""
        self.matches_pod: Match = selectors.nothing if self.problems else pods.match
        self.matches_namespace: Match = spaces.match
        self.selects = _container_test(spec)
        """Tells of a container's name, and whether it is an init container, if it is for that; None: for all."""
        self.annotation = marks.annotation_key(key)
        self.hash = marks.content_hash(spec)

    def __repr__(self) -> str:
        return f"<{self.key}>"

    @property
    def usable(self) -> bool:
        """Whether it can be applied."""
        return not self.problems

    def _add_ca_bundle(self, bundle: api.CABundle, problems: list[str]) -> None:
        if (bundle.config_map is None) == (bundle.cluster_trust_bundle is None):
            problems.append("spec.caBundle: expected configMap or clusterTrustBundle, and one of them")
            return
        volume, mount = cabundle.volume(bundle), cabundle.mount()
        self.volumes = (*self.volumes, Volume(cabundle.VOLUME, volume, replaces=True, known=volume))
        self.mounts = (*self.mounts, Mount(cabundle.VOLUME, cabundle.DIRECTORY, mount, replaces=True, known=mount))


def compile_preset(obj: KubeObject) -> Preset:
    """Compile a ClusterPodPreset or PodPreset object; one that cannot be read gives a preset with that problem."""
    key = PresetKey(obj.kind, obj.metadata.namespace, obj.metadata.name)
    type_ = _SPECS[obj.kind]
    if deeper(bytes(obj.spec), _LEVELS):
        return Preset(key, type_(), (f"spec: nested too deeply, expected at most {_LEVELS} levels",))
    try:
        spec = view(obj.spec, type_)
    except msgspec.MsgspecError as error:
        return Preset(key, type_(), (f"spec: {error}",))
    return Preset(key, spec)


def _policy_problems(spec: PodPresetSpec) -> Iterator[str]:
    if spec.conflict_policy not in api.CONFLICT_POLICIES:
        known = ", ".join(api.CONFLICT_POLICIES)
        yield f"spec.conflictPolicy: '{spec.conflict_policy}', expected one of {known}"


def _container_test(spec: PodPresetSpec) -> Callable[[str, bool], bool] | None:
    selector = spec.container_selector
    if selector is None:
        return None
    named = selectors.compile_globs(selector.names)
    inits = selector.init
    if named is None:
        return None if inits else lambda _name, is_init: not is_init
    return lambda name, is_init: (inits or not is_init) and named(name)


# -- env -----------------------------------------------------------------------------------------------------------


def _variables(spec: PodPresetSpec, problems: list[str], notes: list[str]) -> Iterator[Variable]:
    """Yield the variables, each once: of two of one name, or of the two spellings of one, the first counts."""
    seen: dict[str, Variable] = {}
    for at, env in enumerate(spec.env):
        where = f"spec.env[{at}]"
        wrong = list(_env_problems(env, where))
        problems += wrong
        if wrong:
            continue
        made = _variable(env, spec.conflict_policy, where, notes)
        key = names.family(env.name) or env.name
        first = seen.get(key)
        # One spelling as the reference to the other means the same value; both get it, and none may name itself.
        itself = {f"$({first.name})", f"$({made.name})"} if first is not None else ()
        if first is None or first.value in itself:
            seen[key] = made
        elif first.multi and made.multi:
            together = (*first.items, *lists.missing(first.items, made.items))
            items = lists.collapsed(tuple([item for item in together if item not in itself]))
            text = first.text if items == first.items else None
            seen[key] = first._replace(items=items, value=lists.join(items), text=text)
        elif made.value not in itself and not same((first.value, first.value_from), (made.value, made.value_from)):
            notes.append(f"{where}: {env.name} has another value than {first.name} before it, which is the one used")
    yield from seen.values()


def _env_problems(env: EnvVar, where: str) -> Iterator[str]:
    meta = env.metadata or api.EnvMetadata()
    if not env.name:
        yield f"{where}.name: '', expected a name"
    if env.value and env.value_from is not None:
        yield f"{where}: expected value or valueFrom, not both"
    elif env.value_from is not None and len(env.value_from) != 1:
        yield f"{where}.valueFrom: {_listed(env.value_from)}, expected one of {', '.join(shapes.VALUE_SOURCES)}"
    elif env.value_from is not None and (
        wrong := shapes.problem(f"{where}.valueFrom", env.value_from, shapes.ValueFrom)
    ):
        yield wrong
    allowed = (
        ("type", meta.type, (api.SINGLE, api.MULTI)),
        ("merge_strategy", meta.merge_strategy, api.STRATEGIES),
        ("mergeStrategy", meta.merge_strategy_camel, api.STRATEGIES),
        ("override", meta.override, (api.FORCE,)),
    )
    for field, value, known in allowed:
        if value and value not in known:
            yield f"{where}.metadata.{field}: '{value}', expected one of {', '.join(known)}"


def _variable(env: EnvVar, policy: str, where: str, notes: list[str]) -> Variable:
    """Read a variable. Lists come in normal form, so that merging need not look at blanks or `*` again."""
    meta = env.metadata or api.EnvMetadata()
    multi, strategy = _strategy(env.name, meta)
    if not multi and strategy != api.REPLACE:
        notes.append(f"{where}: a single value replaces, {strategy} needs type multi")
        strategy = api.REPLACE
    if env.value_from and env.value_from.keys().isdisjoint(shapes.VALUE_SOURCES):
        known = ", ".join(shapes.VALUE_SOURCES)
        given = _listed(env.value_from)
        notes.append(f"{where}.valueFrom: {given}, expected one of {known}; pods may be refused for it")
    if multi and env.value_from is not None:
        if meta.type or strategy != api.APPEND:
            notes.append(f"{where}: a valueFrom cannot be merged, it replaces")
        multi, strategy = False, api.REPLACE
    value = env.value or ""
    items: lists.Items = ()
    collapsed = False
    if multi:
        items = lists.split(value)
        collapsed = lists.EVERYTHING in items and len(items) > 1
        if collapsed:
            notes.append(f"{where}: * stands for all other items, and is given alone")
        items = lists.collapsed(items)
        value = lists.join(items)
    explicit = bool(meta.type) and multi
    return Variable(
        name=env.name,
        value=value,
        value_from=env.value_from,
        multi=multi,
        items=items,
        strategy=strategy,
        force=meta.override == api.FORCE,
        strict=policy == api.SKIP_ALL and not explicit,
        collapsed=collapsed,
        text=env.value,
    )


def _strategy(name: str, meta: EnvMetadata) -> tuple[bool, str]:
    """Whether a variable is a list, and its strategy, with the defaults of its name."""
    no_proxy = names.is_no_proxy(name)
    written = meta.merge_strategy or meta.merge_strategy_camel
    by_default = no_proxy or written in {api.APPEND, api.PREPEND}
    multi = meta.type == api.MULTI if meta.type else by_default
    return multi, written or (api.APPEND if no_proxy and multi else api.REPLACE)


# -- envFrom, volumes, mounts --------------------------------------------------------------------------------------


def source_key(source: Json) -> tuple[str, str, str]:
    """Return what tells two envFrom apart: prefix, name of the ConfigMap, name of the Secret."""
    return (str(source.get("prefix") or ""), _name(source.get("configMapRef")), _name(source.get("secretRef")))


def _name(ref: Any) -> str:
    return str(ref.get("name") or "") if isinstance(ref, dict) else ""


def mount_path(mount: Json) -> str:
    """Return the path of a mount, or of a volume device, without a slash at its end."""
    path = str(mount.get("mountPath") or "")
    return path.rstrip("/") or path


def _sources(spec: PodPresetSpec, problems: list[str]) -> Iterator[Source]:
    seen: set[tuple[str, str, str]] = set()
    for at, json in enumerate(spec.env_from):
        key = source_key(json)
        _, config_map, secret = key
        label = f"ConfigMap {config_map}" if config_map else f"Secret {secret}"
        if not config_map and not secret:
            problems.append(f"spec.envFrom[{at}]: expected configMapRef or secretRef")
        elif not selectors.is_object_name(config_map or secret):
            problems.append(f"spec.envFrom[{at}]: '{config_map or secret}', expected the name of an object")
        elif config_map and secret:
            problems.append(f"spec.envFrom[{at}]: configMapRef and secretRef, expected one of them")
        elif wrong := shapes.problem(f"spec.envFrom[{at}]", json, shapes.EnvFrom):
            problems.append(wrong)
        elif key not in seen:
            seen.add(key)
            yield Source(key, label, _bare(json), _replaces(json))


def _volumes(spec: PodPresetSpec, problems: list[str], notes: list[str]) -> dict[str, Volume]:
    volumes: dict[str, Volume] = {}
    for at, json in enumerate(spec.volumes):
        where = f"spec.volumes[{at}]"
        name = json.get("name")
        if not name or not isinstance(name, str):
            problems.append(f"{where}.name: expected a name")
        elif len(sources := [kind for kind in shapes.VOLUME_SOURCES if json.get(kind) is not None]) > 1:
            problems.append(f"{where}: {_listed(sources)}, expected one of them")
        elif name in volumes:
            notes.append(f"{where}: {name} was there before, which is the one used")
        else:
            volumes[name] = Volume(name, _bare(json), _replaces(json), shapes.known(json, shapes.Volume))
            if wrong := shapes.problem(where, json, shapes.Volume):
                problems.append(wrong)
            elif not sources:
                notes.append(f"{where}: no source that is known, so pods may get an empty directory")
    return volumes


def _mounts(spec: PodPresetSpec, volumes: Container[str], problems: list[str], notes: list[str]) -> dict[str, Mount]:
    mounts: dict[str, Mount] = {}
    for at, json in enumerate(spec.volume_mounts):
        where = f"spec.volumeMounts[{at}]"
        name, path = json.get("name"), mount_path(json)
        if not isinstance(name, str) or name not in volumes:
            problems.append(f"{where}.name: '{name}', expected one of spec.volumes")
        elif not path:
            problems.append(f"{where}.mountPath: expected a path")
        elif wrong := shapes.problem(where, json, shapes.Mount) or next(_part_problems(json, where), None):
            problems.append(wrong)
        elif path in mounts:
            notes.append(f"{where}: {path} was there before, which is the one used")
        else:
            mounts[path] = Mount(name, path, _bare(json), _replaces(json), shapes.known(json, shapes.Mount))
    return mounts


def _part_problems(mount: Json, where: str) -> Iterator[str]:
    """Yield what is wrong with the part of a volume that is mounted."""
    for field in ("subPath", "subPathExpr"):
        part = mount.get(field) or ""
        if not _is_inside(part):
            yield f"{where}.{field}: '{part}', expected a path within the volume"
    if mount.get("subPath") and mount.get("subPathExpr"):
        yield f"{where}: subPath and subPathExpr, expected one of them"


def _listed(fields: Iterable[str]) -> str:
    return " and ".join(sorted(fields)) or "nothing"


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _bare(json: Json) -> Json:
    """Without the metadata, which is for presets alone."""
    return {key: value for key, value in json.items() if key != "metadata"}


def _replaces(json: Json) -> bool:
    """Whether it takes the place of a broader one; the default."""
    meta = json.get("metadata")
    written = (meta.get("merge_strategy") or meta.get("mergeStrategy")) if isinstance(meta, dict) else None
    return written in (None, "", api.REPLACE)  # not a set: what is no text may have no hash
