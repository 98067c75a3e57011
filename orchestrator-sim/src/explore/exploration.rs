//! The runs of an exploration, and how a failing one is made smaller.

use orchestrator_core::env::Simulation;

use super::{
    Counterexample, Explorer, Failure, Plan, Progress, Report,
    action::Action,
    budget::Budget,
    drawn::Script,
    limits,
    plan::Fault,
    property::{Property, Rule},
    shrink,
    world::{Base, Run, WorldError},
};
use crate::objects::{self, Objects};

impl Explorer {
    /// Looks for a run in which something does not hold.
    ///
    /// # Errors
    /// There is one, made as small as it gets; or the world cannot be made.
    pub fn run(&self) -> Result<Report, Failure> {
        let base = Base::new(&self.given)?;
        let budget = Budget::begin(self.budget);
        let mut scene = Scene::of(self, &base, 0)?;
        let extent = scene.well.extent;
        let mut progress = Progress { runs: 1, seeds: 0 };
        for plan in Plan::singles(&extent, |fault| self.may_strike(fault)).into_iter().take_while(|_| budget.is_left())
        {
            scene.try_out(0, plan, &mut progress)?;
            (self.hear)(progress);
        }
        for seed in (0..self.seeds).take_while(|_| budget.is_left()) {
            if self.scene_seed(seed) != scene.seed {
                scene = Scene::of(self, &base, seed)?;
                progress.runs += 1;
            }
            let plan = Plan::draw(&Simulation::new(seed).env(), &scene.well.extent, self.faults_per_run);
            progress.seeds += 1;
            scene.try_out(seed, plan, &mut progress)?;
            (self.hear)(progress);
        }
        Ok(Report { runs: progress.runs, seeds: progress.seeds, extent })
    }

    /// Repeats one run, by the seed and the faults of a counterexample.
    ///
    /// # Errors
    /// Something does not hold; or the text is no plan, or the world cannot be made.
    pub fn replay(&self, seed: u64, plan: &str) -> Result<Report, Failure> {
        let plan: Plan = plan.parse()?;
        let base = Base::new(&self.given)?;
        let script = Script::of(&self.actions, seed, &base)?;
        let well = self.well(&base, &script.actions, seed)?;
        let run = self.one(&base, Some(&well.objects), &script.actions, seed, &plan)?;
        match run.broken {
            None => Ok(Report { runs: 2, seeds: 1, extent: run.extent }),
            Some(property) => {
                let actions = script.actions.iter().map(ToString::to_string).collect();
                let timeline = run.timeline.lines(&run.lives);
                let drawn = script.objects();
                Err(Box::new(Counterexample { property, plan, seed, actions, drawn, timeline }).into())
            }
        }
    }

    /// The seed of what people do, and of how that goes without faults: one for all, unless something is drawn.
    fn scene_seed(&self, seed: u64) -> u64 {
        if self.actions.iter().any(Action::is_drawn) { seed } else { 0 }
    }

    /// The run in which all goes well.
    fn well(&self, base: &Base, actions: &[Action], seed: u64) -> Result<Run, WorldError> {
        self.one(base, None, actions, self.scene_seed(seed), &Plan::default())
    }

    fn one(
        &self,
        base: &Base,
        end: Option<&Objects>,
        actions: &[Action],
        seed: u64,
        plan: &Plan,
    ) -> Result<Run, WorldError> {
        let mut run = base.run(&self.setup, actions, seed, plan)?;
        if let (None, true, Some(end)) = (&run.broken, self.same_end, end) {
            let difference = objects::difference(&end.meaning(), &run.objects.meaning());
            run.broken = difference.map(|difference| format!("it ends as without faults, but: {difference}"));
        }
        if let (None, true, Some(most)) = (&run.broken, plan.faults.is_empty(), self.writes_per_action) {
            let (writes, all) = (run.extent.writes, actions.len().max(1).saturating_mul(most));
            run.broken = (writes > all).then(|| {
                format!("it writes at most {most} times for each thing that people do, but: it writes {writes} times")
            });
        }
        Ok(run)
    }

    /// Whether this property does not hold in a run, and the faults are why.
    fn fails(&self, base: &Base, property: &str, seed: u64, actions: &[Action], faults: &[Fault]) -> bool {
        let end = match self.same_end && !faults.is_empty() {
            true => match self.well(base, actions, seed) {
                Ok(well) if well.broken.is_none() => Some(well.objects),
                _ => return false,
            },
            false => None,
        };
        let run = |faults: &[Fault]| self.one(base, end.as_ref(), actions, seed, &Plan { faults: faults.to_vec() });
        let broken = run(faults).is_ok_and(|run| run.broken.is_some_and(|broken| is_same(&broken, property)));
        // What also fails when all goes well is another failure.
        broken && (faults.is_empty() || run(&[]).is_ok_and(|run| run.broken.is_none()))
    }

    fn is_eventual(&self, name: &str) -> bool {
        let is_meant = |property: &Property| property.name == name && matches!(property.rule, Rule::Eventually(_));
        self.setup.properties.iter().any(is_meant)
    }
}

/// What people do in the runs of a seed, and how that goes without faults.
struct Scene<'a> {
    explorer: &'a Explorer,
    base: &'a Base,
    seed: u64,
    script: Script,
    well: Run,
}

impl<'a> Scene<'a> {
    fn of(explorer: &'a Explorer, base: &'a Base, seed: u64) -> Result<Self, Failure> {
        let script = Script::of(&explorer.actions, seed, base)?;
        let well = explorer.well(base, &script.actions, seed)?;
        let is_broken = well.broken.is_some();
        let mut scene = Self { explorer, base, seed, script, well };
        if is_broken { Err(scene.smallest(seed, &Plan::default())?.into()) } else { Ok(scene) }
    }

    /// One run with faults.
    fn try_out(&mut self, seed: u64, mut plan: Plan, progress: &mut Progress) -> Result<(), Failure> {
        plan.faults.retain(|fault| self.explorer.may_strike(fault));
        if plan.faults.is_empty() {
            return Ok(());
        }
        progress.runs += 1;
        if self.run(seed, &plan)?.broken.is_some() {
            return Err(self.smallest(seed, &plan)?.into());
        }
        Ok(())
    }

    fn run(&self, seed: u64, plan: &Plan) -> Result<Run, WorldError> {
        self.explorer.one(self.base, Some(&self.well.objects), &self.script.actions, seed, plan)
    }

    /// The same failure with fewer faults, simpler objects and fewer actions.
    fn smallest(&mut self, seed: u64, plan: &Plan) -> Result<Box<Counterexample>, WorldError> {
        let (explorer, base) = (self.explorer, self.base);
        let found = self.run(seed, plan)?;
        if explorer.as_found {
            return Ok(self.counterexample(found, seed, plan.clone(), &self.script.actions));
        }
        let property = found.broken.unwrap_or_default();
        let mut runs = limits::SHRINKING_RUNS;
        let fails = |actions: &[Action], faults: &[Fault]| explorer.fails(base, &property, seed, actions, faults);
        let script = &self.script.actions;
        let faults = shrink::without_needless(&plan.faults, &mut runs, |faults| fails(script, faults));
        self.script.simplify(base, &mut runs, |actions| fails(actions, &faults))?;
        // What does not come about by itself may not without any of the actions.
        let actions = if faults.is_empty() && explorer.is_eventual(&property) {
            self.script.actions.clone()
        } else {
            shrink::without_needless(&self.script.actions, &mut runs, |actions| fails(actions, &faults))
        };
        let plan = Plan { faults };
        let run = explorer.one(base, Some(&explorer.well(base, &actions, seed)?.objects), &actions, seed, &plan)?;
        let run = Run { broken: run.broken.or(Some(property)), ..run };
        Ok(self.counterexample(run, seed, plan, &actions))
    }

    fn counterexample(&self, run: Run, seed: u64, plan: Plan, actions: &[Action]) -> Box<Counterexample> {
        Box::new(Counterexample {
            property: run.broken.unwrap_or_default(),
            plan,
            seed,
            actions: actions.iter().map(ToString::to_string).collect(),
            drawn: self.script.objects(),
            timeline: run.timeline.lines(&run.lives),
        })
    }
}

/// Whether two failures are of one property: details may follow its name.
fn is_same(one: &str, other: &str) -> bool {
    let name = |text: &str| text.split(", but: ").next().unwrap_or_default().to_owned();
    name(one) == name(other)
}
