//! The way to a value, as a chain of steps that is written out only where it is told.

/// The way to a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<'a> {
    pub(super) parent: Option<&'a Path<'a>>,
    pub(super) step: Step<'a>,
}

/// The last part of a way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Member(&'a str),
    /// A key of a map.
    Key(&'a str),
    Index(usize),
}

impl Path<'_> {
    /// With keys and indices, as people are told.
    pub(super) fn full(&self) -> String {
        let mut path = self.parent.map(Path::full).unwrap_or_default();
        match self.step {
            Step::Member(name) | Step::Key(name) if path.is_empty() => name.clone_into(&mut path),
            Step::Member(name) | Step::Key(name) => path.extend([".", name]),
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
        path
    }

    /// Without keys and indices, as Go's decoder says it.
    pub(super) fn members(&self) -> String {
        let path = self.parent.map(Path::members).unwrap_or_default();
        match self.step {
            Step::Member(name) if path.is_empty() => name.to_owned(),
            Step::Member(name) => format!("{path}.{name}"),
            Step::Key(_) | Step::Index(_) => path,
        }
    }
}
