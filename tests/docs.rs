//! Tests of the documentation: its manifests pass the checks that `rolecall run` applies, its links resolve, and every
//! decision is in the index.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and says where"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The pages at the top and below `docs/`, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    fn below(folder: &Path, deep: bool, pages: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a folder of pages") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() && deep {
                below(&path, deep, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).expect("a readable page");
                pages.push((path, text));
            }
        }
    }
    let mut pages = Vec::new();
    below(&root(), false, &mut pages);
    below(&root().join("docs"), true, &mut pages);
    below(&root().join("examples"), true, &mut pages);
    pages.sort();
    pages
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The fenced blocks of YAML with the line they start on, without the indentation of their fence.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        match &mut open {
            None if trimmed == "```yaml" => open = Some((at + 2, line.len() - trimmed.len(), String::new())),
            Some((start, _, block)) if trimmed == "```" => {
                blocks.push((*start, std::mem::take(block)));
                open = None;
            }
            Some((_, indent, block)) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// The targets of the links of a page, without those to other hosts.
fn links(text: &str) -> Vec<String> {
    text.match_indices("](")
        .filter_map(|(at, _)| text[at + 2..].split(')').next())
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| link.split('#').next().unwrap_or(link).to_owned())
        .collect()
}

#[test]
fn every_manifest_in_the_documentation_passes_the_checks() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("manifest.yaml");
    let (mut seen, mut problems) = (0, Vec::new());
    for (path, text) in pages() {
        for (line, block) in yaml_blocks(&text) {
            if !block.contains("apiVersion: rolecall.dev/") {
                continue;
            }
            let name = format!("{}:{line}", shown(&path));
            fs::write(&file, &block).expect("a manifest");
            let output = Command::new(env!("CARGO_BIN_EXE_rolecall"))
                .args(["lint", "-o", "json"])
                .arg(&file)
                .output()
                .expect("run rolecall lint");
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
            seen += report["objects"].as_u64().expect("a number of objects");
            let findings = report["findings"].as_array().expect("findings").iter();
            // A page shows where a token stands, and no token.
            let errors = findings.filter(|found| found["severity"] == "error" && found["reason"] != "TokenInvalid");
            problems.extend(errors.map(|found| format!("{name}: {}: {}", found["field"], found["message"])));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(seen >= 5, "only {seen} documents were found");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for link in links(&text) {
            let target = path.parent().expect("a page in a folder").join(&link);
            if !target.exists() {
                broken.push(format!("{} links to `{link}`", shown(&path)));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_of_where_to_find_it_exists() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("a page about the architecture");
    let (_, section) = page.split_once("\n## Where to find it\n").expect("a heading `## Where to find it`");
    let section = section.split("\n## ").next().unwrap_or(section);
    let quoted = section.split('`').skip(1).step_by(2);
    let files: Vec<&str> = quoted.filter(|text| text.starts_with("src/")).collect();
    let missing: Vec<&str> = files.iter().copied().filter(|file| !root().join(file).is_file()).collect();
    assert!(missing.is_empty(), "docs/architecture.md names files that do not exist: {}", missing.join(", "));
    assert!(files.len() >= 20, "only {} files were found", files.len());
}

#[test]
fn every_decision_is_in_the_index() {
    let index = fs::read_to_string(root().join("docs/decisions.md")).expect("an index of decisions");
    let mut records = 0;
    for entry in fs::read_dir(root().join("docs/decisions")).expect("a folder of decisions") {
        let name = entry.expect("a readable entry").file_name().to_string_lossy().into_owned();
        assert!(index.contains(&format!("(decisions/{name})")), "docs/decisions.md does not list `{name}`");
        records += 1;
    }
    assert!(records > 0);
}

#[test]
fn every_decision_has_a_title_a_date_a_status_and_the_same_headings() {
    for entry in fs::read_dir(root().join("docs/decisions")).expect("a folder of decisions") {
        let path = entry.expect("a readable entry").path();
        let text = fs::read_to_string(&path).expect("a record");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut lines = text.lines();
        let number = &name[..3];
        assert!(lines.next().is_some_and(|line| line.starts_with(&format!("# {number}: "))), "{name}: title");
        let head = lines.nth(1).unwrap_or_default();
        let date = head.strip_prefix("Date: ").and_then(|rest| rest.get(..10)).unwrap_or_default();
        assert!(date.parse::<jiff::civil::Date>().is_ok(), "{name}: `Date: YYYY-MM-DD. Status: …`");
        assert!(head[16..].starts_with(". Status: "), "{name}: status");
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let known = ["Problem", "Decision", "Consequences", "Considered"];
        assert!(headings.starts_with(&known[..3]), "{name}: {headings:?}");
        assert!(headings.iter().all(|heading| known.contains(heading)), "{name}: {headings:?}");
    }
}

/// The names of all functions below a folder of sources.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable source");
            let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            found.extend(text.split("fn ").skip(1).map(name));
        }
    }
}

#[test]
fn every_test_that_the_page_of_threats_names_exists() {
    let mut known = BTreeSet::new();
    for folder in ["src", "tests", "emulator"] {
        functions(&root().join(folder), &mut known);
    }
    let page = fs::read_to_string(root().join("docs/threats.md")).expect("the page of threats");
    let named: Vec<&str> =
        page.split('`').skip(1).step_by(2).filter_map(|quoted| Some(quoted.rsplit_once("::")?.1)).collect();
    assert!(named.len() > 50, "{named:?}");
    let unknown: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(unknown.is_empty(), "no test has these names: {unknown:?}");
}
