//! Fuzzing of what outsiders send: filters, paths, PATCH bodies, manifests and patterns of resources.
//!
//! Each target is a function of bytes that panics when an invariant is broken. A run begins with the corpus in
//! `tests/fuzz` and goes on with mutations of it. An input with a result of a new form joins the inputs that are mutated.
//! A test run takes a fixed number of inputs from a fixed seed; `SECONDS` and `SEED` are the long form.

mod mutate;
mod targets;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::Mutator;
use targets::Target;

/// Largest number of inputs that are mutated.
const POOL: usize = 5000;
/// Longest time for one input. The work is bounded in steps; this only ends an endless loop.
const LONGEST: Duration = Duration::from_secs(20);
/// Interval between looks at the clock, in inputs.
const LOOK: u64 = 64;

#[expect(clippy::disallowed_methods, reason = "the flags of a run come with the test")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The inputs of a target in `tests/fuzz`: each file is one, and so is each line of `lines.txt`.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(target.name);
    let mut inputs = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        if file.ends_with("lines.txt") {
            inputs.extend(bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        } else {
            inputs.push(bytes);
        }
    }
    inputs
}

/// Runs a target on an input. Returns the form of the result.
fn run(target: &Target, input: &[u8]) -> String {
    let begun = Instant::now();
    let form = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).unwrap_or_else(|_| {
        panic!(
            "{}: an invariant is broken, see above. Add the input to tests/fuzz/{}: b\"{}\"",
            target.name,
            target.name,
            input.escape_ascii()
        )
    });
    let took = begun.elapsed();
    assert!(took < LONGEST, "{}: {took:?} for b\"{}\"", target.name, input.escape_ascii());
    form
}

fn fuzz(target: &Target) {
    let mut pool = corpus(target);
    let mut forms: HashSet<String> = pool.iter().map(|input| run(target, input)).collect();
    let (begun, seconds) = (Instant::now(), setting("SECONDS").map(Duration::from_secs));
    let seed = setting("SEED").unwrap_or(1);
    let mut mutator = Mutator::new(seed, target.words, target.longest);
    let mut inputs = 0;
    loop {
        let over = match seconds {
            Some(seconds) => inputs % LOOK == 0 && begun.elapsed() >= seconds,
            None => inputs >= target.inputs,
        };
        if over {
            break;
        }
        let input = mutator.next(&pool);
        let form = run(target, &input);
        if pool.len() < POOL && forms.insert(form) {
            pool.push(input);
        }
        inputs += 1;
    }
    println!(
        "measured: fuzzing of {}, seed {seed}: {inputs} inputs, {} forms of results, {:.1} s",
        target.name,
        forms.len(),
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn filter_is_parsed_to_what_it_prints_or_refused_with_a_reason() {
    fuzz(&targets::FILTER);
}

#[test]
fn path_is_parsed_to_what_it_prints_or_refused_with_a_reason() {
    fuzz(&targets::PATH);
}

#[test]
fn patch_body_gives_a_resource_in_the_stored_form_or_is_refused_with_a_reason() {
    fuzz(&targets::PATCH);
}

#[test]
fn manifest_gives_objects_that_are_read_again_alike_or_problems_with_reasons() {
    fuzz(&targets::MANIFEST);
}

#[test]
fn glob_matches_what_a_second_matcher_matches_or_is_refused_with_a_reason() {
    fuzz(&targets::GLOB);
}
