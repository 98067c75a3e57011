//! What distinguishes two values: which fields were added, changed and taken away.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    path::{PathElement, same},
    set::{FieldSet, Node},
    types::{Form, ListType, MapType, Relation, TypeRef},
};

/// The difference of two values. No path is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

impl Comparison {
    pub(crate) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// The fields that a writer who made the change has set.
    pub(crate) fn set(&self) -> FieldSet {
        self.modified.union(&self.added)
    }

    /// The difference outside of some fields and everything below them.
    pub(crate) fn without(mut self, fields: &FieldSet) -> Self {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.subtract_with_all_below(fields);
        }
        self
    }

    /// The difference outside of some fields, but with everything below them.
    pub(crate) fn without_only(mut self, fields: &FieldSet) -> Self {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.subtract(fields);
        }
        self
    }
}

/// Compares two values of a type.
///
/// # Errors
/// An item of a list cannot be told from others; the path and the reason.
pub(crate) fn compare(old: &Value, new: &Value, of: TypeRef<'_>) -> Result<Comparison, String> {
    let change = compare_values(Some(old), Some(new), of)?;
    Ok(Comparison { added: change.added.below, modified: change.modified.below, removed: change.removed.below })
}

/// The difference at one path and below.
#[derive(Default)]
struct Change {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Change {
    /// The difference of two values that are not looked into.
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        match (old, new) {
            (None, _) => Self { added: Node::member(), ..Self::default() },
            (_, None) => Self { removed: Node::member(), ..Self::default() },
            (Some(old), Some(new)) if same(old, new) => Self::default(),
            _ => Self { modified: Node::member(), ..Self::default() },
        }
    }

    fn add(&mut self, element: PathElement, change: Self) {
        let parts = [
            (&mut self.added, change.added),
            (&mut self.modified, change.modified),
            (&mut self.removed, change.removed),
        ];
        let mut parts = parts.into_iter().filter(|(_, part)| !part.is_empty()).peekable();
        while let Some((node, part)) = parts.next() {
            if parts.peek().is_none() {
                node.below.add(element, part);
                return;
            }
            node.below.add(element.clone(), part);
        }
    }

    fn merge(&mut self, other: Self) {
        for (node, part) in
            [(&mut self.added, other.added), (&mut self.modified, other.modified), (&mut self.removed, other.removed)]
        {
            node.member |= part.member;
            node.below.extend(part.below);
        }
    }
}

fn compare_values(old: Option<&Value>, new: Option<&Value>, of: TypeRef<'_>) -> Result<Change, String> {
    if old == new {
        return Ok(Change::default());
    }
    let mut change = Change::default();
    let mut leaf = false;
    for form in forms(old, new, of) {
        let (found, is_leaf) = compare_as(form, old, new, of)?;
        change.merge(found);
        leaf = is_leaf;
    }
    if !leaf {
        change.added.member |= old.is_none();
        change.removed.member |= new.is_none();
    }
    Ok(change)
}

/// The forms that two values have: one, or two where they differ even in that.
fn forms<'a>(old: Option<&Value>, new: Option<&Value>, of: TypeRef<'a>) -> impl Iterator<Item = Form<'a>> {
    let (before, after) = (of.form(old), of.form(new));
    let (first, second) = match (old, new) {
        (_, None) => (before, None),
        (None, _) => (after, None),
        _ if kind(before) == kind(after) => (after, None),
        _ => (before, after),
    };
    first.into_iter().chain(second)
}

fn kind(form: Option<Form<'_>>) -> Option<std::mem::Discriminant<Form<'_>>> {
    form.map(|form| std::mem::discriminant(&form))
}

/// The difference, and whether the values were not looked into.
fn compare_as(
    form: Form<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    of: TypeRef<'_>,
) -> Result<(Change, bool), String> {
    match form {
        Form::Scalar(_) => Ok((Change::leaf(old, new), true)),
        Form::List(list) => {
            let (before, after) = (items(old), items(new));
            if list.relation == Relation::Atomic || before.is_empty() && after.is_empty() {
                return Ok((Change::leaf(old, new), true));
            }
            Ok((compare_items(before, after, list, of)?, false))
        }
        Form::Map(map) => {
            let (before, after) = (members(old), members(new));
            if map.atomic || before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty) {
                return Ok((Change::leaf(old, new), true));
            }
            Ok((compare_members(before, after, map, of)?, false))
        }
    }
}

pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn members(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn compare_members(
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    map: &MapType,
    of: TypeRef<'_>,
) -> Result<Change, String> {
    let mut change = Change::default();
    let added = new.into_iter().flatten().filter(|(name, _)| !old.is_some_and(|old| old.contains_key(*name)));
    let pairs = old.into_iter().flatten().map(|(name, value)| (name, Some(value), new.and_then(|new| new.get(name))));
    for (name, before, after) in pairs.chain(added.map(|(name, value)| (name, None, Some(value)))) {
        // Most members are as they were, and upstream's typed objects know no difference between null and nothing.
        if before == after || is_nothing(before) && is_nothing(after) {
            continue;
        }
        let Some(id) = map.fields.get(name).copied().or(map.others) else { continue };
        let element = PathElement::field(name);
        let found = compare_values(before, after, of.to(id)).map_err(|why| format!("{element}{why}"))?;
        change.add(element, found);
    }
    Ok(change)
}

fn is_nothing(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

fn compare_items(old: &[Value], new: &[Value], list: &ListType, of: TypeRef<'_>) -> Result<Change, String> {
    let mut change = Change::default();
    for (element, (old, new)) in pair(old, new, list)? {
        match (old.as_slice(), new.as_slice()) {
            (old @ ([] | [_]), new @ ([] | [_])) => {
                let found = compare_values(old.first().copied(), new.first().copied(), of.to(list.items));
                let found = found.map_err(|why| format!("{element}{why}"))?;
                change.add(element, found);
            }
            // Items that cannot be told apart are one piece.
            (old @ [_, _, ..], new @ [_, _, ..]) if old == new => {}
            ([_, _, ..], [_, _, ..]) => change.modified.below.add(element, Node::member()),
            ([_, _, ..], rest) => {
                if let Some(item) = rest.first() {
                    let found = compare_values(None, Some(item), of.to(list.items));
                    let found = found.map_err(|why| format!("{element}{why}"))?;
                    change.add(element.clone(), found);
                }
                change.removed.below.add(element, Node::member());
            }
            (rest, _) => {
                if let Some(item) = rest.first() {
                    let found = compare_values(Some(item), None, of.to(list.items));
                    let found = found.map_err(|why| format!("{element}{why}"))?;
                    change.add(element.clone(), found);
                }
                change.added.below.add(element, Node::member());
            }
        }
    }
    Ok(change)
}

/// The items of two lists by what tells them apart.
type Pairs<'v> = BTreeMap<PathElement, (Vec<&'v Value>, Vec<&'v Value>)>;

fn pair<'v>(old: &'v [Value], new: &'v [Value], list: &ListType) -> Result<Pairs<'v>, String> {
    let mut pairs = Pairs::new();
    let element = |(index, item)| list.element(index, item).map_err(|why| format!(": element {index}: {why}"));
    for (index, item) in old.iter().enumerate() {
        pairs.entry(element((index, item))?).or_default().0.push(item);
    }
    for (index, item) in new.iter().enumerate() {
        pairs.entry(element((index, item))?).or_default().1.push(item);
    }
    Ok(pairs)
}
