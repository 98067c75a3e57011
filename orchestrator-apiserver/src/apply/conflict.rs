//! Conflicts: fields that somebody applies with another value than their managers gave them.

use std::fmt;

use super::{
    managers::{ManagerId, Operation},
    path::{PathElement, show},
};

/// A field and who manages it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) manager: ManagerId,
    pub(crate) path: Vec<PathElement>,
}

impl Conflict {
    /// The field, such as `.spec.replicas`.
    pub(crate) fn field(&self) -> String {
        show(&self.path)
    }

    /// What a cause of the answer says.
    pub(crate) fn message(&self) -> String {
        format!("conflict with {}", shown(&self.manager))
    }
}

/// All conflicts of a request, in the order of their managers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflicts(pub(crate) Vec<Conflict>);

/// The message of the answer.
impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [conflict] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: {}: {}", conflict.message(), conflict.field());
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut last = None;
        for conflict in &self.0 {
            if last != Some(&conflict.manager) {
                let line_feed = if last.is_some() { "\n" } else { "" };
                write!(f, "{line_feed}conflicts with {}:", shown(&conflict.manager))?;
                last = Some(&conflict.manager);
            }
            write!(f, "\n- {}", conflict.field())?;
        }
        Ok(())
    }
}

fn shown(manager: &ManagerId) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text += &format!(" with subresource {:?}", manager.subresource);
    }
    if manager.operation == Operation::Update {
        text += &format!(" using {}", manager.api_version);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(name: &str, operation: Operation, subresource: &str, field: &str) -> Conflict {
        let manager = ManagerId::new(name, operation, "apps/v1", subresource);
        Conflict { manager, path: field.split('.').map(PathElement::field).collect() }
    }

    #[test]
    fn one_conflict_is_named_in_one_line() {
        let one = conflict("kubectl-client-side-apply", Operation::Update, "", "spec.replicas");
        assert_eq!(
            Conflicts(vec![one]).to_string(),
            "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
        );
        let one = conflict("m2", Operation::Apply, "", "data.a");
        assert_eq!(Conflicts(vec![one]).to_string(), "Apply failed with 1 conflict: conflict with \"m2\": .data.a");
    }

    #[test]
    fn many_conflicts_are_listed_by_manager() {
        let conflicts = Conflicts(vec![
            conflict("a", Operation::Apply, "", "x"),
            conflict("a", Operation::Apply, "", "y"),
            conflict("hpa", Operation::Update, "scale", "z"),
        ]);
        assert_eq!(
            conflicts.to_string(),
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .x\n- .y\nconflicts with \"hpa\" with subresource \
             \"scale\" using apps/v1:\n- .z"
        );
    }
}
