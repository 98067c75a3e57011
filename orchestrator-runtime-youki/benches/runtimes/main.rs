//! Containers here and by `runc` and `crun`, in one run: what a container's whole life takes, and what a node full of pods holds.
//!
//! `cargo bench -p orchestrator-runtime-youki --bench runtimes -- [CYCLES] [PODS]`. Needs Linux, root and a `busybox`
//! without libraries; of the other runtimes it measures those that the machine has. Where both versions of cgroups are mounted, `crun`
//! wants to be run without the second: `unshare --mount sh -c 'umount /sys/fs/cgroup/unified; exec cargo bench …'`.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod peers;
mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use orchestrator_core::runtime::{ContainerRuntime, SandboxStatus};
use peers::Peer;
use support::{Failure, Place, container, sandbox};

fn main() -> Result<(), Failure> {
    if let Err(missing) = orchestrator_runtime_youki::YoukiRuntime::check_machine() {
        println!("not measured: this machine lacks {missing}");
        return Ok(());
    }
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let (cycles, pods) = (numbers.next().unwrap_or(100), numbers.next().unwrap_or(100));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let place = Place::new()?;
        let measured = async {
            lives(&place, cycles).await?;
            crowd(&place, pods).await
        };
        let measured = measured.await;
        place.clean().await?;
        measured
    })
}

/// Create, start, end and delete, by turns, so that all meet the same machine. The namespaces of the pod are there already.
async fn lives(place: &Place, cycles: usize) -> Result<(), Failure> {
    let pod = place.pod(&sandbox(0)).await?;
    let holder = place.start(&pod, &container("holder", &["sleep", "1000000"])).await?;
    let peers = Peer::all(place.directory(), place.process_of(&pod.id, &holder)?)?;
    let mut own = Series::new("youki");
    let mut others: Vec<Series> = peers.iter().map(|peer| Series::new(peer.name())).collect();
    // Once each, so that programs and layers are in memory.
    life(place, &pod, "warm").await?;
    for peer in &peers {
        peer.life("warm")?;
    }
    for number in 0..cycles {
        let name = format!("cycle-{number}");
        own.add(life(place, &pod, &name).await?);
        for (peer, series) in peers.iter().zip(&mut others) {
            series.add(peer.life(&name)?);
        }
    }
    println!("a container's life (create, start, end, delete), {cycles} of each by turns:");
    own.print();
    let mine = own.median();
    for other in &mut others {
        other.print();
        println!("    youki takes {:.2} times as long", mine.as_secs_f64() / other.median().as_secs_f64());
    }
    drop(peers);
    place.runtime().remove_sandbox(&pod.id).await?;
    Ok(())
}

async fn life(place: &Place, pod: &SandboxStatus, name: &str) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let id = place.start(pod, &container(name, &["true"])).await?;
    place.ended(&id).await?;
    place.runtime().remove_container(&id).await?;
    Ok(begun.elapsed())
}

/// Pods with a container each, made at once.
async fn crowd(place: &Place, count: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    let made = join_all((1..=count).map(async |number| {
        let pod = place.pod(&sandbox(number)).await?;
        place.start(&pod, &container("main", &["sleep", "1000000"])).await?;
        Ok::<_, Failure>(begun.elapsed())
    }));
    let times: Vec<Duration> = made.await.into_iter().collect::<Result<_, _>>()?;
    let mut series = Series { name: "running after".to_owned(), times };
    println!("{count} pods with a container each, asked for at once:");
    series.print();
    let helpers = place.helpers()?;
    let total: u64 = helpers.iter().sum();
    let mean = total / u64::try_from(helpers.len().max(1))?;
    let largest = helpers.iter().max().copied().unwrap_or(0);
    println!(
        "    {} helpers with {mean} KiB of private memory each, {largest} KiB at most, {total} KiB in all",
        helpers.len()
    );
    println!("    this process: {} KiB of private memory", support::private_kibibytes("self")?);
    let begun = Instant::now();
    let pods = place.runtime().list_sandboxes().await?;
    println!("    listed in {:.1?}", begun.elapsed());
    let begun = Instant::now();
    for removed in join_all(pods.iter().map(|pod| place.runtime().remove_sandbox(&pod.id))).await {
        removed?;
    }
    println!("    removed in {:.1?}", begun.elapsed());
    Ok(())
}

/// Times of one thing.
struct Series {
    name: String,
    times: Vec<Duration>,
}

impl Series {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), times: Vec::new() }
    }

    fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// The time that this share of all, in hundredths, does not exceed.
    fn percentile(&mut self, share: usize) -> Duration {
        self.times.sort_unstable();
        let last = self.times.len().saturating_sub(1);
        self.times.get(last * share / 100).copied().unwrap_or_default()
    }

    fn median(&mut self) -> Duration {
        self.percentile(50)
    }

    fn print(&mut self) {
        let [half, most, all] = [50, 90, 100].map(|share| self.percentile(share));
        println!("  {:<14} p50 {half:>8.1?}  p90 {most:>8.1?}  max {all:>8.1?}", self.name);
    }
}
