"""What a call is made of: each part knows its SQL and how it can be made smaller."""

import json


class Raw(str):
    """A number as jsonb may have it, and as Python would not write it."""


class Null:
    """SQL's NULL, where None is JSON's."""


def to_json(value):
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return '{' + ', '.join(f'{json.dumps(k, ensure_ascii=False)}: {to_json(v)}'
                               for k, v in value.items()) + '}'
    if isinstance(value, list):
        return '[' + ', '.join(map(to_json, value)) + ']'
    return json.dumps(value, ensure_ascii=False)


def quote(text):
    """A string as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(text):
    """A name as SQL has it."""
    return '"' + text.replace('"', '""') + '"'


def fewer(values):
    """The same with half of them left out, with a quarter, and so on to a single one."""
    size = (len(values) + 1) // 2
    while size:
        for n in range(0, len(values), size):
            yield values[:n] + values[n + size:]
        size //= 2


def smaller_json(value):
    """The same with one key or element left out, at any depth."""
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
        for key in value:
            for less in smaller_json(value[key]):
                yield {**value, key: less}
    elif isinstance(value, list):
        for n in range(len(value)):
            yield value[:n] + value[n + 1:]
        for n, element in enumerate(value):
            for less in smaller_json(element):
                yield value[:n] + [less] + value[n + 1:]


class Json:
    def __init__(self, value):
        self.value = value

    def sql(self):
        return 'NULL::jsonb' if self.value is Null else f'{quote(to_json(self.value))}::jsonb'

    def smaller(self):
        return map(Json, smaller_json(self.value))


class Spec(Json):
    """An object of which only the rows, the changes and the ids can be made smaller."""

    def smaller(self):
        for key in ('rows', 'changes', 'ids'):
            for less in smaller_json(self.value.get(key)):
                if key != 'rows' or all('id' in row for row in less):
                    yield Spec({**self.value, key: less})


class Ids:
    """An array of ids: flat, with other lower bounds, or with two dimensions."""

    def __init__(self, ids, shape='flat'):
        self.ids = ids
        self.shape = shape

    def sql(self):
        if self.ids is Null:
            return 'NULL::bigint[]'
        texts = ['NULL' if i is None else str(i) for i in self.ids]
        if texts and self.shape == 'bounds':
            return f"'[-3:{len(texts) - 4}]={{{','.join(texts)}}}'::bigint[]"
        if texts and self.shape == 'deep':
            # In pairs where they are even
            n = 1 + (len(texts) % 2 == 0)
            rows = [','.join(texts[i:i + n]) for i in range(0, len(texts), n)]
            return "'{" + ','.join(f'{{{row}}}' for row in rows) + "}'::bigint[]"
        return f"'{{{','.join(texts)}}}'::bigint[]"

    def smaller(self):
        if self.ids is Null:
            return
        if self.shape != 'flat':
            yield Ids(self.ids)
        for less in fewer(self.ids):
            yield Ids(less, self.shape)


class Option:
    """An argument that can be left out, with its comma."""

    def __init__(self, text):
        self.text = text

    def sql(self):
        return self.text

    def smaller(self):
        if self.text:
            yield Option('')


class Call:
    """Some SQL for the extension and some for the model, in which parts stand as <name>."""

    def __init__(self, kind, got, wanted, parts, settings):
        self.kind = kind
        self.got = got
        self.wanted = wanted
        self.parts = parts
        self.settings = settings

    def render(self, text, functions, tables):
        for name, part in self.parts.items():
            text = text.replace(f'<{name}>', part.sql())
        return text.replace('@m', functions).replace('@t', tables)

    def smaller(self):
        for name, part in self.parts.items():
            for less in part.smaller():
                yield Call(self.kind, self.got, self.wanted, {**self.parts, name: less},
                           self.settings)
        for key in self.settings:
            yield Call(self.kind, self.got, self.wanted, self.parts,
                       {k: v for k, v in self.settings.items() if k != key})
