"""Answers to `merge`."""

from __future__ import annotations

import posixpath

from autograder.answers import alternative, mutant

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


def _below(tree, folder):
    return [path for path in tree if path.startswith(folder + "/")]


def _apply(layers, *, skip=(), own_layer_last=True):
    """Merge bottom up; `skip` names rules that are left out."""
    tree = {}
    for layer in layers:
        for path in layer:
            folder, name = posixpath.split(path)
            if name == OPAQUE and "opaque" not in skip:
                for old in _below(tree, folder):
                    del tree[old]
            elif name.startswith(WHITEOUT) and name != OPAQUE and "whiteout" not in skip:
                gone = posixpath.join(folder, name.removeprefix(WHITEOUT))
                tree.pop(gone, None)
                if "subtree" not in skip:
                    for old in _below(tree, gone):
                        del tree[old]
        for path, content in layer.items():
            if posixpath.basename(path).startswith(WHITEOUT) and "hide" not in skip:
                continue
            if content is not None and "file-over-folder" not in skip:
                for old in _below(tree, path):
                    del tree[old]
            tree[path] = content
    return tree


@alternative("merge")
def bottom_up(layers):
    return _apply(layers)


@alternative("merge")
def nested_folders(layers):
    root = {}

    def place(path):
        node = root
        for part in path.split("/")[:-1]:
            node = node[part]
        return node

    for layer in layers:
        for path in sorted(layer, key=lambda p: p.count("/")):
            folder, name = posixpath.split(path)
            node = root
            for part in folder.split("/") if folder else []:
                node = node.get(part) if isinstance(node, dict) else None
            if not isinstance(node, dict):
                continue
            if name == OPAQUE:
                node.clear()
            elif name.startswith(WHITEOUT):
                node.pop(name[len(WHITEOUT) :], None)
        for path in sorted(layer, key=lambda p: p.count("/")):
            name = posixpath.basename(path)
            if name.startswith(WHITEOUT):
                continue
            node = place(path)
            if layer[path] is not None:
                node[name] = layer[path]
            elif not isinstance(node.get(name), dict):
                node[name] = {}

    def flat(node, prefix=""):
        for name, value in node.items():
            if isinstance(value, dict):
                yield prefix + name, None
                yield from flat(value, prefix + name + "/")
            else:
                yield prefix + name, value

    return dict(flat(root))


@alternative("merge")
def top_down(layers):
    tree, closed = {}, set()

    def hidden(path):
        parts = path.split("/")
        return any("/".join(parts[:n]) in closed for n in range(1, len(parts) + 1)) or any(
            "/".join(parts[:n]) + "/" in closed for n in range(1, len(parts))
        )

    for layer in reversed(layers):
        closing = set()
        for path, content in layer.items():
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                closing.add(folder + "/")
            elif name.startswith(WHITEOUT):
                closing.add(posixpath.join(folder, name[len(WHITEOUT) :]))
            elif not hidden(path):
                if path not in tree:
                    tree[path] = content
                if content is not None:
                    closing.add(path)
        closed |= closing
    return tree


@alternative("merge")
def with_a_queue_of_removals(layers):
    result = {}
    for layer in layers:
        gone, emptied = set(), set()
        for path in layer:
            head, _, tail = path.rpartition("/")
            if tail == OPAQUE:
                emptied.add(head)
            elif tail.startswith(WHITEOUT):
                gone.add((head + "/" if head else "") + tail[4:])
        gone |= {path for path, content in layer.items() if content is not None}

        def lost(path, gone=gone, emptied=emptied):
            parents = [path[:i] for i, c in enumerate(path) if c == "/"]
            return path in gone or any(p in gone or p in emptied for p in parents)

        result = {path: content for path, content in result.items() if not lost(path)}
        result.update({p: c for p, c in layer.items() if not posixpath.basename(p).startswith(WHITEOUT)})
    return result


@mutant("merge", "order")
def the_lower_wins(layers):
    return _apply(list(reversed(layers)))


@mutant("merge", "whiteout-visible")
def plain_update(layers):
    tree = {}
    for layer in layers:
        tree.update(layer)
    return tree


@mutant("merge", "whiteout-ignored")
def whiteouts_only_hidden(layers):
    return _apply(layers, skip=("whiteout",))


@mutant("merge", "whiteout-leaves-content")
def removes_the_folder_alone(layers):
    return _apply(layers, skip=("subtree",))


@mutant("merge", "opaque-ignored")
def opaque_is_a_whiteout_of_nothing(layers):
    return _apply(layers, skip=("opaque",))


@mutant("merge", "folders-replaced")
def folders_replace(layers):
    tree = {}
    for layer in layers:
        for path, content in layer.items():
            for old in _below(tree, path):
                if old not in layer:
                    del tree[old]
            tree[path] = content
    return {path: content for path, content in tree.items() if ".wh." not in path}


@mutant("merge", "file-over-folder")
def content_survives_the_folder(layers):
    return _apply(layers, skip=("file-over-folder",))


@mutant("merge", "whiteout-of-own-layer")
def everything_in_order(layers):
    tree = {}
    for layer in layers:
        for path in sorted(layer, key=lambda p: (OPAQUE not in p, p.rpartition("/")[2].startswith(WHITEOUT))):
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                for old in _below(tree, folder):
                    del tree[old]
            elif name.startswith(WHITEOUT):
                gone = posixpath.join(folder, name[4:])
                for old in [gone, *_below(tree, gone)]:
                    tree.pop(old, None)
            else:
                if layer[path] is not None:
                    for old in _below(tree, path):
                        del tree[old]
                tree[path] = layer[path]
    return tree


@mutant("merge", "opaque-of-own-layer")
def opaque_in_the_order_of_the_layer(layers):
    tree = {}
    for layer in layers:
        tree = _apply([tree, {p: None for p in layer if WHITEOUT in p and not p.endswith(OPAQUE)}])
        for path, content in layer.items():
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                for old in _below(tree, folder):
                    del tree[old]
            elif not name.startswith(WHITEOUT):
                tree = _apply([tree, {path: content}])
    return tree


@mutant("merge", "whiteout-of-layers-above")
def removed_for_ever(layers):
    gone = [p.replace(WHITEOUT, "", 1) for layer in layers for p in layer if WHITEOUT in p and not p.endswith(OPAQUE)]
    tree = _apply(layers)
    return {p: c for p, c in tree.items() if not any(p == g or p.startswith(g + "/") for g in gone)}


@mutant("merge", "gone-for-good")
def a_new_folder_brings_the_old_content_back(layers):
    # hides at the end what is whited out, instead of removing it
    tree, gone = {}, {}
    for level, layer in enumerate(layers):
        for path, content in layer.items():
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                for old in [p for p in _below(tree, folder) if tree[p][1] < level]:
                    del tree[old]
            elif name.startswith(WHITEOUT):
                gone[posixpath.join(folder, name[4:])] = level
            else:
                if content is not None:
                    for old in _below(tree, path):
                        del tree[old]
                tree[path] = (content, level)
    hidden = {path for path, level in gone.items() if path not in tree or tree[path][1] < level}
    return {
        p: content
        for p, (content, _) in tree.items()
        if p not in hidden and not any(p.startswith(h + "/") for h in hidden)
    }


@mutant("merge", "prefix-is-not-a-folder")
def by_prefix(layers):
    tree = {}
    for layer in layers:
        for path in layer:
            folder, name = posixpath.split(path)
            if name.startswith(WHITEOUT) and name != OPAQUE:
                gone = posixpath.join(folder, name.removeprefix(WHITEOUT))
                tree = {p: c for p, c in tree.items() if not p.startswith(gone)}
        tree = _apply([tree, layer])
    return tree


@mutant("merge", "raised")
def needs_a_first_layer(layers):
    return _apply([layers[0], *layers[1:]])


@mutant("merge", "not-a-dict")
def names_only(layers):
    return sorted(_apply(layers))


@mutant("merge", "unanswered")
def merge_untouched(layers):
    raise NotImplementedError
