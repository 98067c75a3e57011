//! The bound on managers that update: the oldest are joined into one entry for each version.

use std::collections::BTreeMap;

use super::managers::{ManagerId, Managers, Operation};
use crate::limits;

/// The name of the entry that the oldest are joined into.
const NAME: &str = "ancient-changes";

/// Joins the oldest entries of updates until few enough are left.
pub(crate) fn join(managers: &mut Managers) {
    let updates = managers.iter().filter(|(id, _)| id.operation == Operation::Update);
    let mut oldest: Vec<_> = updates.map(|(id, managed)| (managed.time.clone(), id.clone())).collect();
    let mut count = oldest.len();
    oldest.sort();
    let mut first_of_version: BTreeMap<String, ManagerId> = BTreeMap::new();
    for (_, id) in oldest {
        if count <= limits::UPDATE_MANAGERS {
            return;
        }
        let Some(version) = managers.get(&id).map(|managed| managed.api_version.clone()) else { continue };
        let Some(first) = first_of_version.get(&version).cloned() else {
            first_of_version.insert(version, id);
            continue;
        };
        let bucket = ManagerId::new(NAME, Operation::Update, &version, "");
        let older = managers.remove(&bucket).or_else(|| managers.remove(&first));
        if let (Some(mut managed), Some(older)) = (managers.remove(&id), older) {
            managed.set.extend(older.set);
            managers.insert(bucket, managed);
        }
        count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{managers::Managed, set::FieldSet};

    #[test]
    fn the_oldest_updates_are_joined_and_nothing_is_lost() {
        let mut managers = Managers::new();
        for index in 0..14 {
            let id = ManagerId::new(&format!("m{index:02}"), Operation::Update, "v1", "");
            let set = FieldSet::of_fields(&[&format!("data.{index:02}")]);
            let time = Some(format!("2026-01-01T00:00:{index:02}Z"));
            managers.insert(id, Managed { api_version: "v1".to_owned(), time, set });
        }
        let id = ManagerId::new("applier", Operation::Apply, "v1", "");
        let set = FieldSet::of_fields(&["data.x"]);
        managers.insert(id, Managed { api_version: "v1".to_owned(), time: None, set });
        join(&mut managers);
        assert_eq!(managers.len(), limits::UPDATE_MANAGERS + 1);
        let ancient = &managers[&ManagerId::new(NAME, Operation::Update, "v1", "")];
        let joined = ["data.00", "data.01", "data.02", "data.03", "data.04"];
        assert_eq!(ancient.set, FieldSet::of_fields(&joined));
        assert_eq!(ancient.time.as_deref(), Some("2026-01-01T00:00:04Z"));
    }
}
