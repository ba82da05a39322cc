//! Deterministic simulation: catalog, sync, status, store and a scripted target in one process, from a seed.
//!
//! ```text
//! seed ─► steps ──► IdP (store) · resources · somebody else's edits · faults · crashes · a second leader
//!                         │
//!                   engine under paused time ──► scripted target with a journal
//!                         │
//!                   reference model ──► at rest: live, ledger, audit, statuses and queue say the same
//! ```
//!
//! Time is tokio's, paused: hours pass in milliseconds. All random draws come from the seed, so that a failing seed
//! fails again. `make simulate SEEDS=N` runs any number of seeds, `SEED=K` one of them with its trace; see
//! `docs/testing.md`.

mod chance;
mod check;
mod clock;
mod database;
mod driver;
mod expect;
mod facts;
mod names;
mod nesting;
mod outside;
mod people;
mod process;
mod report;
mod rest;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use report::Report;

/// Number of seeds in `make test`.
const SEEDS: u64 = 2000;
/// Number of seeds that are run twice, to check that both runs are equal.
const TWICE: u64 = 20;

#[expect(clippy::disallowed_methods, reason = "the flags of a simulation come with the test")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, traced: bool, most: Option<usize>) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let report = catch_unwind(AssertUnwindSafe(|| runtime.block_on(driver::play(seed, traced, most))));
    report.unwrap_or_else(|panic| Report::broken(seed, panic.as_ref()))
}

/// Runs a failed seed again with its trace, and with as few steps as it still fails with.
fn shortest(failed: &Report) -> Report {
    let fails = |most: &usize| !run(failed.seed, false, Some(*most)).problems.is_empty();
    let steps = usize::try_from(failed.counts.steps).unwrap_or(0);
    let most = (0..steps).find(fails);
    let mut report = run(failed.seed, true, most);
    report.shortened = most.map(|most| (most, steps));
    report
}

/// Runs seeds on all cores until one fails. Returns the totals, and the failed seed.
fn run_all(seeds: std::ops::Range<u64>, seconds: Option<u64>) -> (report::Totals, Option<Report>) {
    let (next, totals, failed) = (AtomicU64::new(seeds.start), Mutex::new(report::Totals::default()), Mutex::new(None));
    let (begun, goes_on) = (Instant::now(), setting("ALL").is_some());
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = seconds.is_some_and(|seconds| begun.elapsed().as_secs() >= seconds);
                    let ends = !goes_on && failed.lock().expect("a result").is_some();
                    if seed >= seeds.end || over || ends {
                        return;
                    }
                    let report = run(seed, false, None);
                    totals.lock().expect("totals").add(&report);
                    if !report.problems.is_empty() {
                        println!("{}", report.short());
                        let mut failed = failed.lock().expect("a result");
                        if failed.as_ref().is_none_or(|before: &Report| before.seed > seed) {
                            *failed = Some(report);
                        }
                    }
                }
            });
        }
    });
    (totals.into_inner().expect("totals"), failed.into_inner().expect("a result"))
}

#[test]
fn at_rest_every_seed_agrees_with_the_model() {
    if let Some(seed) = setting("SEED") {
        let report = run(seed, false, None);
        let report = if report.problems.is_empty() { run(seed, true, None) } else { shortest(&report) };
        println!("{}", report.full());
        assert!(report.problems.is_empty(), "{}", report.short());
        return;
    }
    let first = setting("FIRST").unwrap_or(0);
    let count = setting("SEEDS").unwrap_or(SEEDS);
    let begun = Instant::now();
    let (totals, failed) = run_all(first..first + count, setting("SECONDS"));
    println!("measured: simulation, {totals}, {:.1} s", begun.elapsed().as_secs_f64());
    if let Some(report) = failed {
        let report = shortest(&report);
        println!("{}", report.full());
        panic!("{}", report.short());
    }
}

#[test]
fn seed_replays_exactly() {
    for seed in 0..TWICE {
        let (one, other) = (run(seed, true, None), run(seed, true, None));
        let differs = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(one.digest, other.digest, "seed {seed}: {differs:#?}");
    }
}
