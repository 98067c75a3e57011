//! What happens to a reconciler in one run: faults at counted places, as text and back.

use std::{fmt, str::FromStr, time::Duration};

use orchestrator_core::env::Env;

use super::limits;

/// Something that goes wrong, at a place that is counted from the start of the run: the n-th write, request or event of
/// the process under test, all of its lives together. Counting begins with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process is killed when its n-th write has been done, before it hears of it.
    CrashAfterWrite(usize),
    /// The process is killed right before its n-th write is done.
    CrashBeforeWrite(usize),
    /// The n-th write is done, and the process is told that the time ran out.
    LoseAnswer(usize),
    /// The n-th write is not done, and refused as one that is too late.
    Conflict(usize),
    /// The n-th write is not done, because the server's store fails.
    StoreFails(usize),
    /// The n-th write is not done, because a webhook that is to admit it does not answer.
    WebhookFails(usize),
    /// The n-th request is not done, because the server is busy.
    Busy(usize),
    /// The n-th request is not done, because this client has sent too many of them.
    Throttled(usize),
    /// The whole process stands still before its n-th request, for longer than any lease lasts, while the world goes on. Then it
    /// does what it was about to do.
    StandStill(usize),
    /// The process's time of day jumps ahead, right before its n-th request.
    ClockAhead(usize),
    /// The process's time of day jumps back, right before its n-th request.
    ClockBack(usize),
    /// From the n-th event on the process hears nothing of what happens for a while; then it hears all of it.
    Late(usize),
    /// The watch of the n-th event ends before it, and cannot go on from there: the process has to list again, and never
    /// sees what was between.
    Unseen(usize),
    /// The n-th event comes twice.
    Twice(usize),
    /// The process is killed at its n-th event, and lives again with a server that is behind, at an earlier event of the
    /// process, which is the second number: time goes back for it, until that server catches up.
    BackInTime(usize, usize),
    /// The server is killed and started again before the n-th request.
    ServerRestart(usize),
}

/// The faults of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The faults.
    pub faults: Vec<Fault>,
}

/// How often the things happen that faults are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Writes of the process.
    pub writes: usize,
    /// Its requests, writes among them.
    pub requests: usize,
    /// Events of its watches.
    pub events: usize,
}

/// A text that is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault; faults are such as \"crash-after-write=3\", joined by commas")]
pub struct NoPlan(String);

/// A fault of some sort, at a place.
type Make = fn(usize) -> Fault;

impl Fault {
    /// All sorts of faults with one number, by name.
    const SORTS: [(&'static str, Make); 15] = [
        ("crash-after-write", Self::CrashAfterWrite),
        ("crash-before-write", Self::CrashBeforeWrite),
        ("lose-answer", Self::LoseAnswer),
        ("conflict", Self::Conflict),
        ("store-fails", Self::StoreFails),
        ("webhook-fails", Self::WebhookFails),
        ("busy", Self::Busy),
        ("throttled", Self::Throttled),
        ("stand-still", Self::StandStill),
        ("clock-ahead", Self::ClockAhead),
        ("clock-back", Self::ClockBack),
        ("late", Self::Late),
        ("unseen", Self::Unseen),
        ("twice", Self::Twice),
        ("server-restart", Self::ServerRestart),
    ];

    const BACK_IN_TIME: &'static str = "back-in-time";

    /// Whether it makes the process's time of day wrong.
    pub fn is_of_the_clock(&self) -> bool {
        matches!(self, Self::ClockAhead(_) | Self::ClockBack(_))
    }

    /// Where it happens: at the n-th of what it is counted by.
    pub fn place(self) -> usize {
        match self {
            Self::CrashAfterWrite(place)
            | Self::CrashBeforeWrite(place)
            | Self::LoseAnswer(place)
            | Self::Conflict(place)
            | Self::StoreFails(place)
            | Self::WebhookFails(place)
            | Self::Busy(place)
            | Self::Throttled(place)
            | Self::StandStill(place)
            | Self::ClockAhead(place)
            | Self::ClockBack(place)
            | Self::Late(place)
            | Self::Unseen(place)
            | Self::Twice(place)
            | Self::BackInTime(place, _)
            | Self::ServerRestart(place) => place,
        }
    }

    fn name(self) -> &'static str {
        let place = self.place();
        Self::SORTS.iter().find(|(_, make)| make(place) == self).map_or("", |(name, _)| name)
    }

    /// In which of an extent's numbers it is counted.
    fn bound(self, extent: &Extent) -> usize {
        match self {
            Self::CrashAfterWrite(_)
            | Self::CrashBeforeWrite(_)
            | Self::LoseAnswer(_)
            | Self::Conflict(_)
            | Self::StoreFails(_)
            | Self::WebhookFails(_) => extent.writes,
            Self::Busy(_)
            | Self::Throttled(_)
            | Self::StandStill(_)
            | Self::ClockAhead(_)
            | Self::ClockBack(_)
            | Self::ServerRestart(_) => extent.requests,
            Self::Late(_) | Self::Unseen(_) | Self::Twice(_) | Self::BackInTime(..) => extent.events,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackInTime(event, to) => write!(f, "{}={event}/{to}", Self::BACK_IN_TIME),
            fault => write!(f, "{}={}", fault.name(), fault.place()),
        }
    }
}

impl FromStr for Fault {
    type Err = NoPlan;

    fn from_str(text: &str) -> Result<Self, NoPlan> {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        let fault = text.trim().split_once('=').and_then(|(name, place)| {
            if name == Self::BACK_IN_TIME {
                let (event, to) = place.split_once('/')?;
                return Some(Self::BackInTime(number(event)?, number(to)?));
            }
            let (_, make) = Self::SORTS.iter().find(|(sort, _)| *sort == name)?;
            Some(make(number(place)?))
        });
        fault.ok_or_else(|| NoPlan(text.to_owned()))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        f.write_str(&faults.join(","))
    }
}

impl FromStr for Plan {
    type Err = NoPlan;

    fn from_str(text: &str) -> Result<Self, NoPlan> {
        let faults = text.split(',').filter(|part| !part.trim().is_empty()).map(Fault::from_str);
        Ok(Self { faults: faults.collect::<Result<_, _>>()? })
    }
}

impl Plan {
    /// One fault alone.
    pub fn of(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }

    /// All plans with one fault that may strike: not a sample. Of what is long only the crashes after each write.
    pub(super) fn singles(extent: &Extent, may_strike: impl Fn(&Fault) -> bool) -> Vec<Self> {
        let mut faults: Vec<Fault> = (1..=extent.writes).map(Fault::CrashAfterWrite).collect();
        let others = Fault::SORTS.iter().map(|(_, make)| *make).flat_map(|make| {
            let places = 1..=make(1).bound(extent);
            places.map(make).filter(|fault| !matches!(fault, Fault::CrashAfterWrite(_)))
        });
        let back = (1..=extent.events).flat_map(|event| (1..event).map(move |to| Fault::BackInTime(event, to)));
        let others: Vec<Fault> = others.chain(back).filter(&may_strike).take(limits::SINGLE_FAULTS + 1).collect();
        if others.len() <= limits::SINGLE_FAULTS {
            faults.extend(others);
        }
        faults.into_iter().filter(may_strike).map(Self::of).collect()
    }

    /// A few faults of a few sorts. What differs from seed to seed is first of all which sorts there are, so that rare meetings
    /// are not drowned by common ones ("swarm testing", Groce et al., 2012).
    pub(super) fn draw(env: &Env, extent: &Extent, most: usize) -> Self {
        let below = |bound: usize| env.random_below(bound as u64) as usize;
        let back_in_time = |event| Fault::BackInTime(event, event);
        let sorts = Fault::SORTS.iter().map(|(_, make)| *make).chain([back_in_time as Make]);
        let sorts: Vec<Make> = sorts.filter(|make| make(1).bound(extent) > 0).collect();
        let chosen: Vec<Make> = sorts.iter().copied().filter(|_| below(3) == 0).collect();
        let chosen = if chosen.is_empty() { sorts } else { chosen };
        let mut faults = Vec::new();
        if !chosen.is_empty() && most > 0 {
            for _ in 0..=below(most) {
                let make = chosen[below(chosen.len())];
                faults.push(match make(1 + below(make(1).bound(extent))) {
                    Fault::BackInTime(event, _) => Fault::BackInTime(event, 1 + below(event)),
                    fault => fault,
                });
            }
        }
        faults.sort_unstable();
        faults.dedup();
        Self { faults }
    }
}

/// How long a process that was killed is dead.
pub(super) const DEATH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use orchestrator_core::env::Simulation;

    use super::*;

    #[test]
    fn plans_are_texts() {
        let text = "crash-after-write=3,late=1,back-in-time=7/3";
        let plan: Plan = text.parse().unwrap();
        assert_eq!(plan.faults, [Fault::CrashAfterWrite(3), Fault::Late(1), Fault::BackInTime(7, 3)]);
        assert_eq!(plan.to_string(), text);
        assert_eq!("".parse(), Ok(Plan::default()));
        for text in ["crash", "crash-after-write=0", "late=x", "later=1", "back-in-time=3"] {
            assert_eq!(text.parse::<Plan>(), Err(NoPlan(text.to_owned())));
        }
        for (name, make) in Fault::SORTS {
            assert_eq!(make(7).to_string(), format!("{name}=7"));
        }
    }

    #[test]
    fn single_faults_are_all_there_unless_they_are_too_many() {
        let plans = |writes, events| Plan::singles(&Extent { writes, requests: writes, events }, |_| true);
        // Six sorts for each write, six for each request, three for each event, and all pairs of events.
        assert_eq!(plans(2, 3).len(), 2 * 6 + 2 * 6 + 3 * 3 + 3);
        let on_time = Plan::singles(&Extent { writes: 2, requests: 2, events: 0 }, |fault| !fault.is_of_the_clock());
        assert_eq!(on_time.len(), 2 * 6 + 2 * 4);
        let of_many = plans(500, 500);
        assert_eq!(of_many.len(), 500);
        assert_eq!(of_many[499], Plan::of(Fault::CrashAfterWrite(500)));
    }

    #[test]
    fn faults_are_drawn_from_what_there_is() {
        let extent = Extent { writes: 3, requests: 9, events: 0 };
        for seed in 0..200 {
            let plan = Plan::draw(&Simulation::new(seed).env(), &extent, 3);
            assert!(!plan.faults.is_empty() && plan.faults.len() <= 3);
            assert!(plan.faults.iter().all(|fault| fault.place() <= fault.bound(&extent)), "{plan}");
            assert_eq!(plan, Plan::draw(&Simulation::new(seed).env(), &extent, 3), "a seed is a plan");
        }
        assert_eq!(Plan::draw(&Simulation::new(1).env(), &Extent::default(), 3), Plan::default());
        assert_eq!(Plan::draw(&Simulation::new(1).env(), &extent, 0), Plan::default());
    }
}
