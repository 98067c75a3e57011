//! 20 nodes and 100 pods: containers and nodes fail, everything comes right, and a seed repeats to the byte.

use orchestrator_sim::scenario::Scenario;

#[test]
fn twenty_seeds_converge_and_fall_silent() {
    let scenario = Scenario::small();
    assert_eq!((scenario.nodes, scenario.pods()), (20, 100));
    for seed in 0..20 {
        if let Err(failure) = scenario.run_from_nothing(seed) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_same_seed_has_the_same_history() {
    let scenario = Scenario::small();
    for seed in [0, 1] {
        let (one, report) = scenario.run_from_nothing(seed).unwrap();
        let (other, again) = scenario.run_from_nothing(seed).unwrap();
        let difference = one.history(|one| other.history(|other| one.difference(other).map(|it| it.to_string())));
        assert_eq!(difference, None, "seed {seed}");
        assert_eq!(report, again);
        assert_eq!(one.diary(), other.diary());
    }
}

#[test]
fn another_seed_has_another_history() {
    let scenario = Scenario::small();
    let hash = |seed| scenario.run_from_nothing(seed).unwrap().1.hash;
    assert_ne!(hash(0), hash(1));
}
