//! The way from an object to one of its members. Hardly any is ever told, so its text is made only then.

use std::{fmt, sync::Arc};

/// Most ways are this long at most; only the rest of longer ones is on the heap.
const USUAL_STEPS: usize = 6;

/// A way, as steps from the object on.
#[derive(Clone, Debug, Default)]
pub(super) struct Path<'a> {
    /// What goes before the steps, as a text of its own.
    base: Option<Arc<str>>,
    usual: [Step<'a>; USUAL_STEPS],
    len: usize,
    further: Vec<Step<'a>>,
}

/// One step of a way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Member(&'a str),
    /// An entry of a map, which is named as items of lists are.
    Key(&'a str),
    Item(usize),
}

impl Default for Step<'_> {
    fn default() -> Self {
        Self::Item(0)
    }
}

impl<'a> Path<'a> {
    pub(super) fn then(&self, step: Step<'a>) -> Self {
        let mut longer = self.clone();
        match longer.usual.get_mut(longer.len) {
            Some(place) => *place = step,
            None => longer.further.push(step),
        }
        longer.len += 1;
        longer
    }
}

impl From<String> for Path<'_> {
    fn from(text: String) -> Self {
        Self { base: Some(text.into()).filter(|base: &Arc<str>| !base.is_empty()), ..Self::default() }
    }
}

/// As errors name it: `spec.containers[0].image`, `data[key]`.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base.as_deref().unwrap_or_default();
        f.write_str(base)?;
        let mut dot = if base.is_empty() { "" } else { "." };
        for step in self.usual.iter().chain(&self.further).take(self.len) {
            match step {
                Step::Member(name) => write!(f, "{dot}{name}")?,
                Step::Key(key) => write!(f, "[{key}]")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
            dot = ".";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, Step, USUAL_STEPS};

    #[test]
    fn a_way_is_named_as_upstream_names_it() {
        let image = Path::default().then(Step::Member("spec")).then(Step::Member("containers")).then(Step::Item(0));
        assert_eq!(image.then(Step::Member("image")).to_string(), "spec.containers[0].image");
        assert_eq!(Path::default().then(Step::Member("data")).then(Step::Key("a.b")).to_string(), "data[a.b]");
        assert_eq!(Path::from("spec.os".to_owned()).then(Step::Member("name")).to_string(), "spec.os.name");
        let long = (0..=USUAL_STEPS).fold(Path::default(), |path, _| path.then(Step::Member("a")));
        assert_eq!(long.to_string(), "a.a.a.a.a.a.a");
        assert_eq!(Path::from(String::new()).then(Step::Member("name")).to_string(), "name");
    }
}
