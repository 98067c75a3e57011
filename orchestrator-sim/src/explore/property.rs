//! What has to hold, and whether it does: pure, over the objects of a world as they follow each other.

use std::{fmt, sync::Arc, time::Duration};

use crate::objects::Objects;

/// Whether something holds of the objects of a world.
pub(super) type Check = Arc<dyn Fn(&Objects) -> bool + Send + Sync>;

/// What has to hold.
#[derive(Clone)]
pub(super) enum Rule {
    /// At every moment, after each write of anybody.
    Always(Check),
    /// At the end, when nothing is written any more.
    Eventually(Check),
    /// Whenever the one holds, so does the other not later than after this time.
    LeadsTo { cause: Check, effect: Check, within: Duration },
}

/// A rule with the name that reports give it.
#[derive(Clone)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) rule: Rule,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Property").field(&self.name).finish()
    }
}

/// Looks at a world as it goes on.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    properties: &'a [Property],
    /// Since when the cause of each property holds without its effect.
    waiting: Vec<Option<Duration>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(properties: &'a [Property]) -> Self {
        Self { properties, waiting: vec![None; properties.len()] }
    }

    /// The name of what does not hold now, this long after the start.
    pub(super) fn look(&mut self, objects: &Objects, now: Duration) -> Option<&'a str> {
        for (property, waiting) in self.properties.iter().zip(&mut self.waiting) {
            let holds = match &property.rule {
                Rule::Always(check) => check(objects),
                Rule::Eventually(_) => true,
                Rule::LeadsTo { cause, effect, within } => {
                    *waiting = if effect(objects) { None } else { waiting.or_else(|| cause(objects).then_some(now)) };
                    waiting.is_none_or(|since| now.saturating_sub(since) <= *within)
                }
            };
            if !holds {
                return Some(&property.name);
            }
        }
        None
    }

    /// The name of what does not hold at the end.
    pub(super) fn at_the_end(&self, objects: &Objects) -> Option<&'a str> {
        let broken = |property: &&Property| matches!(&property.rule, Rule::Eventually(check) if !check(objects));
        self.properties.iter().find(broken).map(|property| property.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(rule: Rule) -> Vec<Property> {
        vec![Property { name: "it".to_owned(), rule }]
    }

    fn yes(answer: bool) -> Check {
        Arc::new(move |_: &Objects| answer)
    }

    #[test]
    fn each_rule_has_its_time() {
        let objects = Objects::default();
        let always = property(Rule::Always(yes(false)));
        assert_eq!(Watch::new(&always).look(&objects, Duration::ZERO), Some("it"));
        let eventually = property(Rule::Eventually(yes(false)));
        let mut watch = Watch::new(&eventually);
        assert_eq!((watch.look(&objects, Duration::ZERO), watch.at_the_end(&objects)), (None, Some("it")));
    }

    #[test]
    fn an_effect_may_take_its_time_but_no_longer() {
        let objects = Objects::default();
        let rule = |cause, effect| {
            property(Rule::LeadsTo { cause: yes(cause), effect: yes(effect), within: Duration::from_secs(5) })
        };
        let at = Duration::from_secs;
        let never = rule(true, false);
        let mut watch = Watch::new(&never);
        assert_eq!(
            (watch.look(&objects, at(1)), watch.look(&objects, at(6)), watch.look(&objects, at(7))),
            (None, None, Some("it"))
        );
        for (cause, effect) in [(false, false), (true, true)] {
            let rule = rule(cause, effect);
            let mut watch = Watch::new(&rule);
            assert_eq!((watch.look(&objects, at(1)), watch.look(&objects, at(100))), (None, None));
        }
    }
}
