//! Enforces the table of modules: `docs/architecture.md` lists which module may use which, and this test extracts the
//! actual uses from the code. The table is written down in that document only.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and says where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Largest number of lines of a file; a longer one has to be split.
const MAX_LINES: usize = 700;

/// Largest number of lines of a file of tests, which is a list of cases and not read as a whole.
const MAX_LINES_OF_TESTS: usize = 1000;

/// Names that modules of tiers 0 and 1 must not contain: IO, and the system clock.
const NOT_IN_PURE_MODULES: [&str; 9] = [
    "tokio",
    "rusqlite",
    "reqwest",
    "axum",
    "kube::Client",
    "Timestamp::now",
    "Zoned::now",
    "SystemTime::now",
    "Instant::now",
];

/// The only file of the pure modules that reads the system clock, so that no other has to.
const CLOCK: &str = "src/model/clock.rs";

/// One row of the table.
struct Module {
    /// True when it may use every module.
    all: bool,
    /// Modules that it may use.
    uses: BTreeSet<String>,
    /// The tier. None: usable from every module with IO (`any`), or above all (`top`).
    tier: Option<u8>,
    /// True when every module with IO may use it: logs and metrics.
    anywhere: bool,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}

/// The Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// True when the file is a module of tests by its name.
fn is_of_tests(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// The path from the root of the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Parses the table under the heading "Modules": module | content | may use | tier.
fn table() -> BTreeMap<String, Module> {
    let document = read(&root().join("docs/architecture.md"));
    let (_, section) = document.split_once("\n## Modules\n").expect("a heading `## Modules` in docs/architecture.md");
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut modules = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [names, _, uses, tier] = cells[..] else { panic!("a row with four cells expected: {line}") };
        for name in quoted(names).into_iter().filter(|name| !name.ends_with('/')) {
            let module = Module {
                all: uses == "all",
                uses: quoted(uses).into_iter().collect(),
                tier: tier.parse().ok(),
                anywhere: tier == "any",
            };
            assert!(modules.insert(name.clone(), module).is_none(), "`{name}` has two rows");
        }
    }
    modules
}

/// The folders of `src/`.
fn folders() -> BTreeSet<String> {
    fs::read_dir(root().join("src"))
        .expect("a folder `src`")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .collect()
}

/// The code of a file without its line comments, since comments may name what code may not.
fn code(path: &Path) -> String {
    read(path).lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn word_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The modules in `crate::…` paths of this code, groups in braces included.
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        // `$crate::` in a macro counts as well; `other_crate::` does not.
        if code[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + path.len()..];
        if !rest.starts_with('{') {
            names.insert(word_at(rest));
            continue;
        }
        let mut depth = 0_usize;
        let mut item_starts = false;
        for (at, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && (c == '{' || c == ',') {
                item_starts = true;
            } else if item_starts && !c.is_whitespace() {
                names.insert(word_at(&rest[at..]));
                item_starts = false;
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// True when the code contains this path as a whole word.
fn names_path(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !word(before) && !word(after)
    })
}

#[test]
fn every_module_has_a_row_and_every_row_has_a_module() {
    let rows: BTreeSet<String> = table().into_keys().collect();
    assert_eq!(rows, folders(), "left: rows of the table in docs/architecture.md, right: folders of src/");
}

#[test]
fn a_module_uses_only_modules_of_its_row() {
    let table = table();
    let mut broken = Vec::new();
    for (name, module) in &table {
        for file in rust_files(&root().join("src").join(name)) {
            for used in modules_named(&code(&file)) {
                let Some(other) = table.get(&used) else { continue };
                let has_io = module.tier.is_none_or(|tier| tier >= 2);
                let allowed = used == *name || module.all || module.uses.contains(&used) || (other.anywhere && has_io);
                if !allowed {
                    broken.push(format!("{} uses `{used}`, which the row of `{name}` does not allow", shown(&file)));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_module_is_never_below_the_modules_it_uses() {
    let table = table();
    for (name, module) in &table {
        for used in &module.uses {
            let other = table.get(used).unwrap_or_else(|| panic!("`{name}` may use `{used}`, which has no row"));
            if let (Some(own), Some(theirs)) = (module.tier, other.tier) {
                assert!(theirs <= own, "`{name}` is of tier {own} and may use `{used}` of tier {theirs}");
            }
        }
    }
}

#[test]
fn the_table_has_no_circle() {
    let mut table: BTreeMap<String, BTreeSet<String>> =
        table().into_iter().filter(|(_, module)| !module.all).map(|(name, module)| (name, module.uses)).collect();
    while let Some(free) =
        table.iter().find(|(_, uses)| !uses.iter().any(|used| table.contains_key(used))).map(|(name, _)| name.clone())
    {
        table.remove(&free);
    }
    assert!(table.is_empty(), "these modules use each other in a circle: {:?}", table.keys());
}

#[test]
fn engine_and_scim_server_never_meet() {
    let table = table();
    assert!(!table["sync"].uses.contains("scim_server"));
    assert!(!table["scim_server"].uses.contains("sync"));
}

#[test]
fn planning_and_the_engine_know_no_target_in_particular() {
    let mut broken = Vec::new();
    for name in ["plan", "sync", "catalog", "status"] {
        for file in rust_files(&root().join("src").join(name)) {
            let code = code(&file);
            for word in ["google::", "etag", "Policy", "GoogleError", "CloudRun"] {
                if names_path(&code, word) {
                    broken.push(format!("{} names `{word}`", shown(&file)));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_modules_name_no_io_and_no_system_clock() {
    let mut broken = Vec::new();
    let table = table();
    let pure = table.iter().filter(|(_, module)| module.tier.is_some_and(|tier| tier <= 1));
    let mut files = 0;
    for (name, _) in pure {
        for file in rust_files(&root().join("src").join(name)) {
            files += 1;
            let code = code(&file);
            for path in NOT_IN_PURE_MODULES {
                if names_path(&code, path) && shown(&file) != CLOCK {
                    broken.push(format!("{} names `{path}`", shown(&file)));
                }
            }
        }
    }
    assert!(files > 0, "no pure module was found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_emulator_shares_no_types_with_rolecall() {
    for (folder, other) in [("src", "rolecall_emulator"), ("emulator/src", "rolecall")] {
        // Tests drive the emulator; no code that runs in production knows it.
        for file in rust_files(&root().join(folder)).into_iter().filter(|file| !is_of_tests(file)) {
            assert!(!names_path(&code(&file), &format!("{other}::")), "{} uses `{other}`", shown(&file));
        }
    }
}

#[test]
fn no_file_is_longer_than_people_can_hold_in_mind() {
    let mut long = Vec::new();
    for folder in ["src", "emulator/src"] {
        for file in rust_files(&root().join(folder)) {
            let lines = read(&file).lines().count();
            let limit = if is_of_tests(&file) { MAX_LINES_OF_TESTS } else { MAX_LINES };
            if lines > limit {
                long.push(format!("{} has {lines} lines, the limit is {limit}", shown(&file)));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let named = |code: &str| modules_named(code).into_iter().collect::<Vec<_>>();
    assert_eq!(named("use crate::model::Role;"), ["model"]);
    assert_eq!(named("use crate::{api::{glob, condition}, model, plan::Plan as P};"), ["api", "model", "plan"]);
    assert_eq!(named("let x = crate::store::Seq(1); use other_crate::engine::Queue;"), ["store"]);
    assert!(names_path("use tokio::spawn;", "tokio") && !names_path("use tokio_util::codec;", "tokio"));
}

/// The text before the change, of each hunk of a patch, with the file that it is in.
fn hunks(patch: &str) -> Vec<(String, String)> {
    let mut hunks: Vec<(String, String)> = Vec::new();
    let mut file = String::new();
    for line in patch.lines().skip_while(|line| !line.starts_with("--- ")) {
        if let Some(path) = line.strip_prefix("+++ b/") {
            path.trim().clone_into(&mut file);
        } else if line.starts_with("@@") {
            hunks.push((file.clone(), String::new()));
        } else if let Some((_, before)) = hunks.last_mut()
            && let Some(line) = line.strip_prefix([' ', '-'])
            && !line.starts_with("-- ")
        {
            before.push_str(line);
            before.push('\n');
        }
    }
    hunks
}

#[test]
fn mutations_of_the_simulation_still_find_the_lines_that_they_break() {
    let mut patches = 0;
    for entry in fs::read_dir(root().join("tests/simulation/mutations")).expect("a folder of mutations") {
        let path = entry.expect("a readable entry").path();
        let hunks = hunks(&read(&path));
        assert!(!hunks.is_empty(), "{} has no hunk", shown(&path));
        for (file, before) in hunks {
            let found = read(&root().join(&file)).matches(&before).count();
            assert_eq!(found, 1, "{}: {file} does not have these lines once:\n{before}", shown(&path));
        }
        patches += 1;
    }
    assert_eq!(patches, 9);
}
