//! The election against a model: a server with one lease, a network that loses and delays, clocks that disagree.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::decide::{Candidate, Record, Step, Timing};

const TIMING: Timing = Timing { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10) };

/// Thousandths of true time; the fastest clock is 1.4 times as fast as the slowest, and 1.5 is the bound.
const RATES: std::ops::RangeInclusive<u64> = 850..=1190;

#[derive(Clone, Debug)]
enum Happens {
    Pass(u64),
    /// A process does its next step.
    Step(usize),
    /// A request arrives at the server, or is lost.
    Serve(usize),
    LoseRequest(usize),
    /// A reply arrives at its sender, or is lost.
    Deliver(usize),
    LoseReply(usize),
    /// A process waits no longer for a reply; the request is still on its way.
    GiveUp(usize),
    Crash(usize),
    Release(usize),
    /// The time of day of a process is set.
    SetClock(usize, i64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let index = any::<usize>;
    prop_oneof![
        6 => (0..6000_u64).prop_map(Happens::Pass),
        12 => index().prop_map(Happens::Step),
        12 => index().prop_map(Happens::Serve),
        1 => index().prop_map(Happens::LoseRequest),
        12 => index().prop_map(Happens::Deliver),
        1 => index().prop_map(Happens::LoseReply),
        2 => index().prop_map(Happens::GiveUp),
        1 => index().prop_map(Happens::Crash),
        1 => index().prop_map(Happens::Release),
        1 => (index(), -100_000..100_000_i64).prop_map(|(process, seconds)| Happens::SetClock(process, seconds)),
    ]
}

struct Process {
    candidate: Candidate,
    offset: u64,
    rate: u64,
    wall: i64,
    /// The request that it waits for.
    waits: Option<u64>,
    /// The term that it last led in.
    term: Option<i32>,
}

#[derive(Clone)]
enum Request {
    Look,
    Write(Record, Option<String>, Duration),
}

enum Reply {
    Found(Option<(Record, String)>),
    Written(Record, String, Duration),
    Conflict,
}

struct World {
    time: u64,
    processes: Vec<Process>,
    lease: Option<(Record, String)>,
    version: u64,
    requests: Vec<(u64, usize, Request)>,
    replies: Vec<(u64, usize, Reply)>,
    ids: u64,
    terms: Vec<i32>,
}

impl World {
    fn new(clocks: &[(u64, u64)]) -> Self {
        let process = |(index, (offset, rate)): (usize, &(u64, u64))| Process {
            candidate: Candidate::new(format!("p{index}"), TIMING),
            offset: *offset,
            rate: *rate,
            wall: 0,
            waits: None,
            term: None,
        };
        let processes = clocks.iter().enumerate().map(process).collect();
        let (requests, replies, terms) = (Vec::new(), Vec::new(), Vec::new());
        Self { time: 0, processes, lease: None, version: 0, requests, replies, ids: 0, terms }
    }

    fn clocks(&self, index: usize) -> (Duration, Timestamp) {
        let process = &self.processes[index];
        let monotonic = Duration::from_millis(process.offset + self.time * process.rate / 1000);
        let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000);
        (monotonic, start + SignedDuration::from_secs(process.wall) + monotonic)
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |index: &usize| {
            let until = self.processes[*index].candidate.leads();
            until.is_some_and(|(until, _)| self.clocks(*index).0 < until)
        };
        (0..self.processes.len()).filter(leads).collect()
    }

    fn send(&mut self, index: usize, request: Request) {
        self.ids += 1;
        self.processes[index].waits = Some(self.ids);
        self.requests.push((self.ids, index, request));
    }

    fn step(&mut self, index: usize) {
        let process = &self.processes[index];
        if process.waits.is_some() {
            return;
        }
        if process.candidate.must_look() { self.send(index, Request::Look) } else { self.act(index) }
    }

    fn act(&mut self, index: usize) {
        let (now, wall) = self.clocks(index);
        match self.processes[index].candidate.decide(now, wall) {
            Step::Write(record, over) => self.send(index, Request::Write(record, over, now)),
            Step::Resign => self.processes[index].candidate.resign(),
            Step::Wait(until) => assert!(until > now),
        }
    }

    fn serve(&mut self, request: usize) {
        let (id, from, request) = self.requests.swap_remove(request);
        let reply = match request {
            Request::Look => Reply::Found(self.lease.clone()),
            Request::Write(record, over, begun) if over == self.lease.as_ref().map(|(_, version)| version.clone()) => {
                self.version += 1;
                self.lease = Some((record.clone(), self.version.to_string()));
                Reply::Written(record, self.version.to_string(), begun)
            }
            Request::Write(..) => Reply::Conflict,
        };
        self.replies.push((id, from, reply));
    }

    /// Gives the term, if the process begins to lead with this reply.
    fn deliver(&mut self, reply: usize) -> Option<i32> {
        let (id, index, reply) = self.replies.swap_remove(reply);
        let (now, _) = self.clocks(index);
        let process = &mut self.processes[index];
        if process.waits != Some(id) {
            return None;
        }
        process.waits = None;
        match reply {
            Reply::Found(found) => {
                process.candidate.look(found, now);
                self.act(index);
                None
            }
            Reply::Conflict => {
                process.candidate.doubt();
                None
            }
            Reply::Written(record, version, begun) => {
                process.candidate.wrote(record, version, begun, now);
                let term = process.candidate.leads().map(|(_, term)| term);
                let begins = term != process.term;
                process.term = term;
                term.filter(|_| begins)
            }
        }
    }

    /// The process starts anew, under another identity. What it sent is still on its way.
    fn restart(&mut self, index: usize) {
        self.ids += 1;
        let process = &mut self.processes[index];
        process.candidate = Candidate::new(format!("p{index}-{}", self.ids), TIMING);
        (process.waits, process.term) = (None, None);
    }

    fn happen(&mut self, happening: Happens) -> Result<(), TestCaseError> {
        let count = self.processes.len();
        let (requests, replies) = (self.requests.len(), self.replies.len());
        match happening {
            Happens::Pass(time) => self.time += time,
            Happens::Step(process) => self.step(process % count),
            Happens::Serve(request) if requests > 0 => self.serve(request % requests),
            Happens::LoseRequest(request) if requests > 0 => drop(self.requests.swap_remove(request % requests)),
            Happens::Deliver(reply) if replies > 0 => {
                if let Some(term) = self.deliver(reply % replies) {
                    prop_assert!(self.terms.iter().all(|before| *before < term), "{term} after {:?}", self.terms);
                    self.terms.push(term);
                }
            }
            Happens::LoseReply(reply) if replies > 0 => drop(self.replies.swap_remove(reply % replies)),
            Happens::GiveUp(process) => {
                let process = &mut self.processes[process % count];
                if process.waits.take().is_some() {
                    process.candidate.doubt();
                }
            }
            Happens::Crash(process) => self.restart(process % count),
            Happens::Release(process) => {
                let index = process % count;
                let (now, wall) = self.clocks(index);
                if let Some((record, over)) = self.processes[index].candidate.release(wall) {
                    self.send(index, Request::Write(record, over, now));
                }
                self.restart(index);
            }
            Happens::SetClock(process, seconds) => self.processes[process % count].wall = seconds,
            Happens::Serve(_) | Happens::LoseRequest(_) | Happens::Deliver(_) | Happens::LoseReply(_) => {}
        }
        prop_assert!(self.leaders().len() <= 1, "two leaders: {:?}", self.leaders());
        Ok(())
    }

    /// One second without faults.
    fn quiet_second(&mut self) -> Result<(), TestCaseError> {
        self.happen(Happens::Pass(1000))?;
        for process in 0..self.processes.len() {
            self.happen(Happens::Step(process))?;
            while !self.requests.is_empty() || !self.replies.is_empty() {
                self.happen(Happens::Serve(0))?;
                self.happen(Happens::Deliver(0))?;
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn never_two_leaders_and_always_one_in_the_end(
        clocks in prop::collection::vec((0..1_000_000_u64, RATES), 2..5),
        happenings in prop::collection::vec(happens(), 0..400),
    ) {
        let mut world = World::new(&clocks);
        for happening in happenings {
            world.happen(happening)?;
        }
        world.requests.clear();
        world.replies.clear();
        (0..world.processes.len()).try_for_each(|process| world.happen(Happens::GiveUp(process)))?;
        // The lease duration on the slowest clock, and time to look.
        for _ in 0..20 {
            world.quiet_second()?;
        }
        let leaders = world.leaders();
        prop_assert_eq!(leaders.len(), 1, "somebody leads");
        for _ in 0..60 {
            world.quiet_second()?;
            prop_assert_eq!(world.leaders(), leaders.clone(), "and goes on leading");
        }
    }
}

fn led(identity: &str, now: Duration) -> (Candidate, Record) {
    let mut candidate = Candidate::new(identity.to_owned(), TIMING);
    candidate.look(None, now);
    let Step::Write(record, None) = candidate.decide(now, Timestamp::UNIX_EPOCH) else { panic!("nobody holds it") };
    candidate.wrote(record.clone(), "1".to_owned(), now, now);
    (candidate, record)
}

#[test]
fn a_candidate_waits_for_the_lease_by_its_own_clock() {
    let (_, record) = led("a", Duration::ZERO);
    let mut other = Candidate::new("b".to_owned(), TIMING);
    let seconds = Duration::from_secs;
    other.look(Some((record.clone(), "1".to_owned())), seconds(100));
    assert_eq!(other.decide(seconds(100), Timestamp::MAX), Step::Wait(seconds(115)));
    // Seen again without a change: the time goes on.
    other.look(Some((record.clone(), "1".to_owned())), seconds(110));
    assert_eq!(other.decide(seconds(114), Timestamp::MAX), Step::Wait(seconds(115)));
    // Removed: nobody knows whether its holder has heard of it.
    other.look(None, seconds(114));
    assert_eq!(other.decide(seconds(114), Timestamp::MAX), Step::Wait(seconds(115)));
    let Step::Write(taken, None) = other.decide(seconds(115), Timestamp::UNIX_EPOCH) else { panic!("it is free") };
    assert_eq!((taken.holder.as_str(), taken.transitions), ("b", record.transitions + 1));
}

#[test]
fn a_leader_whose_lease_was_removed_makes_it_again_and_keeps_its_number() {
    let (mut leader, record) = led("a", Duration::ZERO);
    leader.doubt();
    leader.look(None, Duration::from_secs(2));
    let Step::Write(again, None) = leader.decide(Duration::from_secs(2), Timestamp::UNIX_EPOCH) else {
        panic!("it leads")
    };
    assert_eq!((again.holder, again.transitions, again.acquired), (record.holder, record.transitions, record.acquired));
}

#[test]
fn a_released_lease_is_free_and_keeps_its_count() {
    let (leader, _) = led("a", Duration::ZERO);
    let (freed, over) = leader.release(Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((freed.holder.as_str(), over.as_deref()), ("", Some("1")));
    let mut other = Candidate::new("b".to_owned(), TIMING);
    other.look(Some((freed, "2".to_owned())), Duration::ZERO);
    let Step::Write(taken, Some(_)) = other.decide(Duration::ZERO, Timestamp::UNIX_EPOCH) else { panic!("it is free") };
    assert_eq!(taken.transitions, 1);
}

#[test]
fn renewals_differ_also_while_the_clock_stands_still_or_goes_back() {
    let (mut leader, first) = led("a", Duration::ZERO);
    let mut last = first.renewed;
    for second in 1..5 {
        let now = Duration::from_secs(second);
        let wall = Timestamp::UNIX_EPOCH - SignedDuration::from_secs(second as i64);
        let Step::Write(record, _) = leader.decide(now, wall) else { panic!("it leads") };
        assert!(record.renewed > last);
        last = record.renewed;
        leader.wrote(record, second.to_string(), now, now);
    }
}

#[test]
fn a_reply_that_comes_too_late_makes_no_leader() {
    let mut candidate = Candidate::new("a".to_owned(), TIMING);
    candidate.look(None, Duration::ZERO);
    let Step::Write(record, _) = candidate.decide(Duration::ZERO, Timestamp::UNIX_EPOCH) else { panic!() };
    candidate.wrote(record, "1".to_owned(), Duration::ZERO, TIMING.renew_deadline);
    assert_eq!(candidate.leads(), None);
}
