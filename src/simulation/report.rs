//! The report of a seed.

use std::any::Any;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Length of the trace shown for a failed seed among many.
const SHOWN: usize = 4000;

/// The steps of one seed, and the problems found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) problems: Vec<String>,
    /// Steps and calls with their times.
    pub(super) trace: Vec<String>,
    /// Digest over the trace and the audit.
    pub(super) digest: u64,
    pub(super) counts: Counts,
    /// The smallest number of steps after which it still fails, of all its steps.
    pub(super) shortened: Option<(usize, usize)>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) steps: u64,
    pub(super) writes: u64,
    pub(super) crashes: u64,
    pub(super) takeovers: u64,
    pub(super) refusals: u64,
    pub(super) uninstalls: u64,
    pub(super) audit_rows: u64,
    pub(super) virtual_seconds: u64,
}

/// Totals over all seeds.
#[derive(Debug, Default)]
pub(super) struct Totals {
    seeds: u64,
    counts: Counts,
}

impl Report {
    pub(super) fn broken(seed: u64, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Self { seed, problems: vec![format!("panicked: {}", text.unwrap_or("?"))], ..Self::default() }
    }

    pub(super) fn digest_of(trace: &[String], audit: &[String]) -> u64 {
        let mut hasher = DefaultHasher::new();
        (trace, audit).hash(&mut hasher);
        hasher.finish()
    }

    /// The trace and the problems.
    pub(super) fn full(&self) -> String {
        let skipped = self.trace.len().saturating_sub(SHOWN);
        let trace = self.trace[skipped..].join("\n");
        format!("{trace}\n{}", self.short())
    }

    /// The problems, and how to reproduce them.
    pub(super) fn short(&self) -> String {
        if self.problems.is_empty() {
            return format!("seed {}: no problem, digest {:016x}", self.seed, self.digest);
        }
        let problems = self.problems.join("\n  ");
        let shortened =
            self.shortened.map(|(few, all)| format!("it still fails with the first {few} of its {all} steps\n"));
        let shortened = shortened.unwrap_or_default();
        format!("seed {} failed:\n  {problems}\n{shortened}replay it with: make simulate SEED={}", self.seed, self.seed)
    }
}

impl Totals {
    pub(super) fn add(&mut self, report: &Report) {
        let (all, one) = (&mut self.counts, &report.counts);
        self.seeds += 1;
        all.steps += one.steps;
        all.writes += one.writes;
        all.crashes += one.crashes;
        all.takeovers += one.takeovers;
        all.refusals += one.refusals;
        all.uninstalls += one.uninstalls;
        all.audit_rows += one.audit_rows;
        all.virtual_seconds += one.virtual_seconds;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { steps, writes, crashes, takeovers, refusals, uninstalls, audit_rows, virtual_seconds } =
            self.counts;
        write!(
            f,
            "{} seeds: {steps} steps, {writes} writes, {crashes} crashes, {takeovers} changes of the leader, {refusals} \
             requests refused by the store, {uninstalls} uninstalls, {audit_rows} audit rows, {} simulated hours",
            self.seeds,
            virtual_seconds / 3600
        )
    }
}
