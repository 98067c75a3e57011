//! Three processes of controllers, of which one leads: killed and cut off in the middle of work, never two at once, unless one
//! stands still and cannot know.

use orchestrator_sim::scenario::Scenario;

const SEEDS: u64 = 12;

/// A process that has begun to lead and has not ended.
struct Leading<'a> {
    name: &'a str,
    stood_still: bool,
}

#[test]
fn controllers_hand_over_and_everything_comes_right() {
    let scenario = Scenario::leaders();
    let mut hand_overs = 0_u64;
    for seed in 0..SEEDS {
        let (cluster, _) = scenario.run_from_nothing(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let diary = cluster.diary();
        let mut leading: Vec<Leading> = Vec::new();
        for line in &diary {
            if line.contains("the controllers stand still") {
                leading.iter_mut().for_each(|leading| leading.stood_still = true);
            }
            let Some((_, term)) = line.split_once(" manager ") else { continue };
            if let Some(name) = term.strip_suffix(" leads") {
                assert!(leading.iter().all(|leading| leading.stood_still), "seed {seed}: {diary:#?}");
                leading.push(Leading { name, stood_still: false });
                hand_overs += 1;
            } else if let Some(name) = term.strip_suffix(" leads no more") {
                leading.retain(|leading| leading.name != name);
            }
        }
        hand_overs -= 1;
    }
    assert!(hand_overs > SEEDS, "{hand_overs} in all");
}
