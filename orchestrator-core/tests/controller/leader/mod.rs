//! Leader election with whole controllers: hand-over in the middle of work, and nobody ever works beside another.

mod processes;

use std::time::Duration;

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::{ListParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{
        leader::{InvalidElection, LeadEnd, LeaderElection, lead},
        limits,
    },
    env::{Env, Simulation, TaskEnd},
};
use orchestrator_testkit::fake_api::FakeApi;
use tokio_util::sync::CancellationToken;

use self::processes::{Entry, Place, Process};
use crate::config_map;

const SEEDS: std::ops::Range<u64> = 0..40;

/// A candidate looks again after 4.4 s at most, and a look may have to be repeated.
const LOOKS: Duration = Duration::from_secs(10);

fn simulate(test: impl AsyncFn(&Place)) {
    for seed in SEEDS {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let place = Place::new(&env, FakeApi::new(&env));
        simulation.run(test(&place)).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
        let leaders: Vec<_> = place.log().into_iter().filter(|entry| !matches!(entry, Entry::Wrote(_))).collect();
        let alternate =
            |pair: &[Entry]| matches!(pair, [Entry::Leads(first, _), Entry::Ends(second)] if first == second);
        assert!(leaders.chunks(2).all(alternate), "seed {seed}: one after the other: {leaders:?}");
        drop(place);
        simulation.run(env.sleep(Duration::from_secs(60))).unwrap();
        assert_eq!(simulation.tasks(), 0, "seed {seed}: nothing is left running");
    }
}

/// Work for a while: config maps that come one by one.
async fn work_comes(place: &Place, time: Duration) {
    let maps = Api::<ConfigMap>::namespaced(&place.api.client(), "default");
    let end = place.env.monotonic() + time;
    while place.env.monotonic() < end {
        let name = format!("m{}", place.api.revision());
        maps.create(&PostParams::default(), &config_map(&name, "")).await.unwrap();
        place.env.sleep(Duration::from_millis(place.env.random_below(1000))).await;
    }
}

async fn all_is_done(place: &Place) {
    place.env.sleep(Duration::from_secs(60)).await;
    let client = place.api.client();
    let maps = Api::<ConfigMap>::namespaced(&client, "default").list(&ListParams::default()).await.unwrap();
    let pods = Api::<Pod>::namespaced(&client, "default").list(&ListParams::default()).await.unwrap();
    assert!(maps.items.len() > 10);
    assert_eq!(maps.items.len(), pods.items.len());
}

/// Two processes, and which of them leads.
async fn leader_and_other(place: &Place) -> (Process, Process) {
    let (a, b) = (place.start("a"), place.start("b"));
    work_comes(place, Duration::from_secs(5)).await;
    if place.leader() == Some("a") { (a, b) } else { (b, a) }
}

async fn end(place: &Place, processes: [Process; 2]) {
    for process in processes {
        assert_eq!(process.shut_down().await, LeadEnd::Shutdown);
    }
    assert_eq!(place.leader(), None);
}

#[test]
fn a_leader_that_is_cut_off_stops_before_another_begins() {
    simulate(async |place| {
        let (first, second) = leader_and_other(place).await;
        first.network.cut();
        let cut = place.env.monotonic();
        while place.leader() != Some(second.name) {
            work_comes(place, Duration::from_millis(100)).await;
        }
        let taken = place.env.monotonic() - cut;
        assert!(taken <= limits::LEASE_DURATION + LOOKS, "after {taken:?}");
        work_comes(place, Duration::from_secs(10)).await;
        first.network.mend();
        all_is_done(place).await;
        assert!(place.log().contains(&Entry::Leads(second.name, 1)));
        end(place, [first, second]).await;
    });
}

#[test]
fn a_leader_that_slept_through_its_lease_writes_nothing() {
    let (mut refused, mut fenced) = (0, 0);
    for seed in SEEDS {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let place = Place::new(&env, FakeApi::new(&env));
        let test = async {
            let (first, second) = leader_and_other(&place).await;
            first.freeze();
            work_comes(&place, Duration::from_secs(40)).await;
            assert_eq!(place.log().last(), Some(&Entry::Wrote(second.name)));
            first.thaw();
            all_is_done(&place).await;
            let log = place.log();
            let begins = log.iter().position(|entry| *entry == Entry::Leads(second.name, 1)).unwrap();
            assert!(!log[begins..].contains(&Entry::Wrote(first.name)), "seed {seed}: {log:?}");
            end(&place, [first, second]).await;
        };
        simulation.run(test).unwrap();
        refused += place.refused_by_fence();
        fenced += place.refused_by_term();
    }
    assert!(refused > 0 && fenced > 0, "some were in the middle of work: {refused}, {fenced}");
}

#[test]
fn a_released_lease_is_taken_at_once_and_not_before_the_work_has_ended() {
    simulate(async |place| {
        let (first, second) = leader_and_other(place).await;
        work_comes(place, Duration::from_secs(1)).await;
        let name = second.name;
        assert_eq!(first.shut_down().await, LeadEnd::Shutdown);
        place.env.sleep(Duration::from_millis(10)).await;
        assert_eq!(place.leader(), Some(name));
        let leases = Api::<Lease>::namespaced(&place.api.client(), "kube-system");
        let lease = leases.get("pods").await.unwrap();
        let spec = lease.spec.clone().unwrap();
        assert!(spec.holder_identity.unwrap().starts_with(&format!("{name}_")));
        assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(1), Some(15)));
        all_is_done_by(place, second).await;
    });
}

async fn all_is_done_by(place: &Place, process: Process) {
    work_comes(place, Duration::from_secs(10)).await;
    all_is_done(place).await;
    assert_eq!(process.shut_down().await, LeadEnd::Shutdown);
}

#[test]
fn leaders_come_and_go_at_random_and_the_work_is_done() {
    simulate(async |place| {
        let processes = [place.start("a"), place.start("b"), place.start("c")];
        for _ in 0..30 {
            work_comes(place, Duration::from_millis(place.env.random_below(8000))).await;
            let process = &processes[place.env.random_below(3) as usize];
            if place.env.random_below(2) == 0 { process.network.cut() } else { process.network.mend() }
        }
        processes.iter().for_each(|process| process.network.mend());
        place.env.sleep(Duration::from_secs(300)).await;
        all_is_done(place).await;
        for process in processes {
            assert_eq!(process.shut_down().await, LeadEnd::Shutdown);
        }
    });
}

fn election() -> LeaderElection {
    LeaderElection { stand_again: false, ..LeaderElection::new("kube-system", "other", "me") }
}

/// Leads with this work, in a world of its own.
fn lead_with<F: Future<Output = ()> + Send + 'static>(work: impl Fn(Env) -> F) -> (LeadEnd, Lease) {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let client = FakeApi::new(&env).client();
    let leases = Api::<Lease>::namespaced(&client, "kube-system");
    let done = simulation.run(async {
        let labels = Some([("kept".to_owned(), "yes".to_owned())].into());
        let metadata = ObjectMeta { name: Some("other".to_owned()), labels, ..Default::default() };
        leases.create(&PostParams::default(), &Lease { metadata, spec: None }).await.unwrap();
        let end = lead(&client, &env, election(), CancellationToken::new(), |leadership| {
            assert!(leadership.is_held());
            work(leadership.env().clone())
        });
        (end.await.unwrap(), (*leases.get("other").await.unwrap()).clone())
    });
    let (end, lease) = done.unwrap();
    assert_eq!(simulation.tasks(), 0);
    assert!(lease.metadata.labels.as_ref().unwrap().contains_key("kept"));
    (end, lease)
}

#[test]
fn work_that_ends_releases_the_lease_and_takes_its_tasks_along() {
    let (end, lease) = lead_with(|env| async move {
        let task = env.spawn("left behind", std::future::pending());
        env.sleep(Duration::from_secs(60)).await;
        std::mem::forget(task);
    });
    assert_eq!(end, LeadEnd::Work(TaskEnd::Completed));
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity, spec.lease_duration_seconds, spec.lease_transitions), (None, Some(1), Some(1)));
    let (end, lease) = lead_with(|_| async { panic!("on purpose") });
    assert_eq!(end, LeadEnd::Work(TaskEnd::Panicked("on purpose".to_owned())));
    assert_eq!(lease.spec.unwrap().holder_identity, None);
}

#[test]
fn elections_that_cannot_work_are_refused() {
    let seconds = Duration::from_secs;
    let check = |election: LeaderElection| {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let (client, shutdown) = (FakeApi::new(&env).client(), CancellationToken::new());
        shutdown.cancel();
        simulation.run(lead(&client, &env, election, shutdown, |_| async {})).unwrap()
    };
    assert_eq!(check(election()), Ok(LeadEnd::Shutdown));
    let unnamed = LeaderElection { name: String::new(), ..election() };
    assert_eq!(check(unnamed), Err(InvalidElection::Unnamed));
    let short = LeaderElection { lease_duration: seconds(10), ..election() };
    assert_eq!(check(short), Err(InvalidElection::LeaseTooShort));
    let slow = LeaderElection { retry_period: seconds(9), ..election() };
    assert_eq!(check(slow), Err(InvalidElection::DeadlineTooShort));
}
