//! The types of values, as far as they matter for who owns what: which lists and maps are one piece, and how items are told apart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::path::{PathElement, Scalar};

/// The types of one or many kinds, which refer to each other by number.
#[derive(Debug)]
pub(crate) struct Types {
    atoms: Vec<Atom>,
}

/// Which of the types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeId(usize);

/// One type. What may be of several forms is taken for what the value at hand is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Atom {
    pub(crate) scalar: Option<ScalarType>,
    pub(crate) list: Option<ListType>,
    pub(crate) map: Option<MapType>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarType {
    Text,
    Number,
    Flag,
    Any,
}

#[derive(Clone, Debug)]
pub(crate) struct ListType {
    pub(crate) items: TypeId,
    pub(crate) relation: Relation,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Not at all: the list is one piece.
    Atomic,
    /// By their value.
    Set,
    /// By some of their members.
    Keyed(Vec<ListKey>),
}

/// A member by which items are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListKey {
    pub(crate) name: String,
    /// The value of an item without the member.
    pub(crate) default: Option<Scalar>,
}

/// A structure, a map, or both.
#[derive(Clone, Debug, Default)]
pub(crate) struct MapType {
    /// It is one piece.
    pub(crate) atomic: bool,
    pub(crate) fields: BTreeMap<String, TypeId>,
    /// The type of members that are not named; without it they are refused.
    pub(crate) others: Option<TypeId>,
}

/// A type together with those that it refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TypeRef<'a> {
    types: &'a Types,
    atom: &'a Atom,
}

/// What a type is for a value at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form<'a> {
    Scalar(ScalarType),
    List(&'a ListType),
    Map(&'a MapType),
}

impl Types {
    /// Anything, in one piece.
    pub(crate) const UNTYPED: TypeId = TypeId(0);
    /// Anything, taken for what it looks like: objects are maps, lists are one piece.
    pub(crate) const DEDUCED: TypeId = TypeId(1);
    pub(crate) const TEXT: TypeId = TypeId(2);
    pub(crate) const NUMBER: TypeId = TypeId(3);
    pub(crate) const FLAG: TypeId = TypeId(4);
    /// Any plain value.
    pub(crate) const ANY: TypeId = TypeId(5);

    pub(crate) fn new() -> Self {
        let free = |of: TypeId, atomic: bool| Atom {
            scalar: Some(ScalarType::Any),
            list: Some(ListType { items: of, relation: Relation::Atomic }),
            map: Some(MapType { atomic, fields: BTreeMap::new(), others: Some(of) }),
        };
        let scalar = |scalar| Atom { scalar: Some(scalar), ..Atom::default() };
        let scalars = [ScalarType::Text, ScalarType::Number, ScalarType::Flag, ScalarType::Any];
        let free = [free(Self::UNTYPED, true), free(Self::DEDUCED, false)];
        Self { atoms: free.into_iter().chain(scalars.map(scalar)).collect() }
    }

    pub(crate) fn add(&mut self, atom: Atom) -> TypeId {
        self.atoms.push(atom);
        TypeId(self.atoms.len() - 1)
    }

    pub(crate) fn add_list(&mut self, items: TypeId, relation: Relation) -> TypeId {
        self.add(Atom { list: Some(ListType { items, relation }), ..Atom::default() })
    }

    pub(crate) fn add_map(&mut self, map: MapType) -> TypeId {
        self.add(Atom { map: Some(map), ..Atom::default() })
    }

    /// Puts a type in the place of one that was added before it was known.
    pub(crate) fn replace(&mut self, id: TypeId, atom: Atom) {
        if let Some(place) = self.atoms.get_mut(id.0) {
            *place = atom;
        }
    }

    pub(crate) fn atom(&self, id: TypeId) -> &Atom {
        static NOTHING: Atom = Atom { scalar: None, list: None, map: None };
        self.atoms.get(id.0).unwrap_or(&NOTHING)
    }

    pub(crate) fn get(&self, id: TypeId) -> TypeRef<'_> {
        TypeRef { types: self, atom: self.atom(id) }
    }
}

impl<'a> TypeRef<'a> {
    pub(crate) fn to(self, id: TypeId) -> Self {
        self.types.get(id)
    }

    /// What the type is for a value. `None` only for a type that is nothing at all.
    pub(crate) fn form(self, value: Option<&Value>) -> Option<Form<'a>> {
        let scalar = self.atom.scalar.map(Form::Scalar);
        let list = self.atom.list.as_ref().map(Form::List);
        let map = self.atom.map.as_ref().map(Form::Map);
        let fitting = match value {
            None | Some(Value::Null) => None,
            Some(Value::Array(_)) => list,
            Some(Value::Object(_)) => map,
            Some(_) => scalar,
        };
        fitting.or(map).or(scalar).or(list)
    }

    /// The type of the members with a name.
    pub(crate) fn member(self, name: &str) -> Option<Self> {
        let map = self.atom.map.as_ref()?;
        map.fields.get(name).copied().or(map.others).map(|id| self.to(id))
    }

    /// Whether members with that name have a type of their own.
    pub(crate) fn names(self, name: &str) -> bool {
        self.atom.map.as_ref().is_some_and(|map| map.fields.contains_key(name))
    }

    pub(crate) fn items(self) -> Option<Self> {
        self.atom.list.as_ref().map(|list| self.to(list.items))
    }
}

impl MapType {
    /// Whether nothing is said of the members, so that they are taken for what they look like.
    pub(crate) fn is_deduced(&self) -> bool {
        self.fields.is_empty() && self.others == Some(Types::DEDUCED)
    }
}

impl ListType {
    /// What tells an item of the list from others, or why nothing does.
    pub(crate) fn element(&self, index: usize, item: &Value) -> Result<PathElement, String> {
        match &self.relation {
            Relation::Atomic => Ok(PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))),
            Relation::Set => Scalar::of(item).map(PathElement::Value).ok_or_else(|| {
                match item {
                    Value::Object(_) => "associative list without keys has an element that's a map type",
                    Value::Array(_) => "not supported: associative list with lists as elements",
                    _ => "associative list without keys has an element that's an explicit null",
                }
                .to_owned()
            }),
            Relation::Keyed(keys) => keyed_element(keys, item),
        }
    }
}

fn keyed_element(keys: &[ListKey], item: &Value) -> Result<PathElement, String> {
    let members = match item {
        Value::Object(members) => members,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        match members.get(&key.name) {
            Some(value) => {
                let value = Scalar::of(value).ok_or_else(|| format!("key field {:?} is no plain value", key.name))?;
                found.push((key.name.clone(), value));
            }
            None => found.extend(key.default.clone().map(|default| (key.name.clone(), default))),
        }
    }
    if found.is_empty() {
        let names = keys.iter().map(|key| format!("{:?}", key.name)).collect::<Vec<_>>().join(" ");
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{names}] (and doesn't have default \
             values for any key fields)"
        ));
    }
    found.sort();
    Ok(PathElement::Key(found))
}
