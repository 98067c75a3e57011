//! Laws of the queues, whatever happens to them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Arrive(u64),
    /// One of those that run ends.
    Leave(usize),
    /// One of those that wait gives up.
    Withdraw(usize),
    Reshape(Shape),
}

fn shapes() -> impl Strategy<Value = Shape> {
    (0_usize..6, 0_usize..8, 1_usize..4, 0_usize..4).prop_map(|(seats, queues, hand, length)| Shape {
        seats,
        queues,
        hand,
        length,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any::<u64>().prop_map(Step::Arrive),
        5 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Withdraw),
        1 => shapes().prop_map(Step::Reshape),
    ];
    prop::collection::vec(step, 0..200)
}

/// What a bystander writes down: who holds seats, and who waits where, in order.
#[derive(Default)]
struct Model {
    running: Vec<usize>,
    waiting: BTreeMap<usize, VecDeque<(Ticket, u64)>>,
    arrived: u64,
}

impl Model {
    fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    fn arrive(&mut self, queues: &mut Queues<u64>, shape: Shape, flow: u64) {
        self.arrived += 1;
        match queues.arrive(flow) {
            Arrival::Runs(at) => {
                assert!(self.running.len() < shape.seats, "a seat that there is not");
                self.running.push(at);
            }
            Arrival::Waits(at) => {
                let queue = self.waiting.entry(at).or_default();
                assert!(self.running.len() >= shape.seats && queue.len() < shape.length);
                queue.push_back((queues.wait(at, self.arrived), self.arrived));
            }
            Arrival::Refused => assert!(self.running.len() >= shape.seats, "refused while seats were free"),
        }
    }

    fn leave(&mut self, queues: &mut Queues<u64>, choice: usize) {
        if !self.running.is_empty() {
            queues.leave(self.running.remove(choice % self.running.len()));
        }
    }

    fn withdraw(&mut self, queues: &mut Queues<u64>, choice: usize) {
        let all: Vec<_> =
            self.waiting.iter().flat_map(|(at, queue)| queue.iter().map(|(t, w)| (*at, *t, *w))).collect();
        if all.is_empty() {
            return;
        }
        let (at, ticket, waiter) = all[choice % all.len()];
        assert_eq!(queues.withdraw(at, ticket), Some(waiter));
        assert_eq!(queues.withdraw(at, ticket), None, "withdrawn twice");
        self.waiting.entry(at).or_default().retain(|(other, _)| *other != ticket);
    }

    /// Seats go to the first of a queue that holds the fewest.
    fn dispatch(&mut self, queues: &mut Queues<u64>) {
        while let Some((at, waiter)) = queues.next() {
            let seats = |at: usize| self.running.iter().filter(|other| **other == at).count();
            let others = self.waiting.iter().filter(|(_, queue)| !queue.is_empty());
            assert!(others.map(|(other, _)| seats(*other)).all(|other| seats(at) <= other), "not the poorest queue");
            let (_, first) = self.waiting.get_mut(&at).and_then(VecDeque::pop_front).unwrap();
            assert_eq!(waiter, first, "not the first of its queue");
            self.running.push(at);
        }
    }
}

proptest! {
    #[test]
    fn queues_do_as_a_bystander_expects(mut shape in shapes(), steps in steps()) {
        let mut queues = Queues::new(shape);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Arrive(flow) => model.arrive(&mut queues, shape, flow),
                Step::Leave(choice) => model.leave(&mut queues, choice),
                Step::Withdraw(choice) => model.withdraw(&mut queues, choice),
                Step::Reshape(other) => {
                    shape = other;
                    queues.reshape(other);
                }
            }
            model.dispatch(&mut queues);
            prop_assert_eq!((queues.running, queues.waiting), (model.running.len(), model.waiting()));
            // No seat is free while somebody waits.
            prop_assert!(model.waiting() == 0 || model.running.len() >= shape.seats);
        }
    }

    /// However much one flow sends, another one has to wait for no more requests than there are seats.
    #[test]
    fn a_flood_leaves_others_served(flood: u64, other: u64, seats in 1_usize..20) {
        let shape = Shape { seats, queues: 64, hand: 6, length: 50 };
        let (ours, theirs) = (Hand::deal(other, 64, 6), Hand::deal(flood, 64, 6));
        prop_assume!(ours != theirs);
        let mut queues = Queues::new(shape);
        let mut running = VecDeque::new();
        for _ in 0..1000 {
            match queues.arrive(flood) {
                Arrival::Runs(at) => running.push_back(at),
                Arrival::Waits(at) => drop(queues.wait(at, false)),
                Arrival::Refused => {}
            }
        }
        let Arrival::Waits(at) = queues.arrive(other) else { panic!("no place for the other flow") };
        queues.wait(at, true);
        let mut ended = 0;
        loop {
            queues.leave(running.pop_front().unwrap());
            ended += 1;
            let (at, is_other) = queues.next().unwrap();
            running.push_back(at);
            if is_other {
                break;
            }
        }
        prop_assert!(ended <= seats + 6, "{ended}");
    }
}
