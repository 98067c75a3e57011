//! Three processes of controllers, of which one leads: killed and cut off in the middle of work, never two at once.

use orchestrator_sim::scenario::Scenario;

const SEEDS: u64 = 12;

#[test]
fn controllers_hand_over_and_everything_comes_right() {
    let scenario = Scenario::leaders();
    let mut hand_overs = 0;
    for seed in 0..SEEDS {
        let (cluster, _) = scenario.run_from_nothing(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let diary = cluster.diary();
        let terms: Vec<&str> =
            diary.iter().filter_map(|line| line.split_once(" manager ").map(|(_, term)| term)).collect();
        for pair in terms.chunks(2) {
            let [begin, end] = pair else { break };
            let leader = begin.strip_suffix(" leads").unwrap_or_else(|| panic!("seed {seed}: {terms:?}"));
            assert_eq!(end.strip_suffix(" leads no more"), Some(leader), "seed {seed}: {terms:?}");
        }
        hand_overs += terms.chunks(2).count() - 1;
    }
    assert!(hand_overs > SEEDS as usize, "{hand_overs} in all");
}
