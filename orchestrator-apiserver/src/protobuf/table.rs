//! The tables that the schema is made of.

use std::collections::BTreeSet;

const FIELDS: &str = include_str!("../../data/protobuf-fields.tsv");
const PRESENCE: &str = include_str!("../../data/protobuf-presence.tsv");
const RESOURCES: &str = include_str!("../../data/api-resources.tsv");

/// The fields of all messages.
pub(super) fn rows() -> Vec<Row> {
    FIELDS.lines().filter_map(Row::parse).collect()
}

/// Every `apiVersion` that something is served in.
pub(super) fn versions() -> BTreeSet<&'static str> {
    let columns = RESOURCES.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
        let mut columns = line.split('\t');
        [columns.next(), columns.nth(1)]
    });
    columns.flatten().filter(|version| !version.is_empty()).collect()
}

/// A line of the table of fields.
pub(super) struct Row {
    pub(super) package: &'static str,
    pub(super) owner: &'static str,
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) of: &'static str,
    pub(super) json: &'static str,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let columns: Vec<&'static str> = line.split('\t').collect();
        let [package, owner, number, name, label, of, ref rest @ ..] = columns[..] else { return None };
        let json = rest.first().copied().unwrap_or_default();
        Some(Self { package, owner, number: number.parse().ok()?, name, label, of, json })
    }

    pub(super) fn message(&self) -> String {
        format!("{}.{}", self.package, self.owner)
    }

    pub(super) fn key(&self) -> FieldKey {
        (self.package, self.owner, self.name)
    }
}

/// Package, message and name of a field.
pub(super) type FieldKey = (&'static str, &'static str, &'static str);

/// Which fields are not always written, and which JSON always has.
#[derive(Default)]
pub(super) struct Presence {
    pub(super) nullable: BTreeSet<FieldKey>,
    pub(super) shown: BTreeSet<FieldKey>,
}

impl Presence {
    pub(super) fn load() -> Self {
        let mut presence = Self::default();
        for line in PRESENCE.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&'static str> = line.split('\t').collect();
            let [package, owner, nullable, shown] = columns[..] else { continue };
            let keys = |names: &'static str| names.split(' ').map(move |name| (package, owner, name));
            presence.nullable.extend(keys(nullable));
            presence.shown.extend(keys(shown));
        }
        presence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_presence_names_a_field() {
        let known: BTreeSet<FieldKey> = rows().iter().map(Row::key).collect();
        let presence = Presence::load();
        for key in presence.nullable.union(&presence.shown).filter(|(.., name)| !name.is_empty()) {
            assert!(known.contains(key), "{key:?}");
        }
    }
}
