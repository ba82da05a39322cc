use std::collections::BTreeSet;

use crate::model::Reason;

const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

fn headings() -> Vec<&'static str> {
    RUNBOOK.lines().filter_map(|line| line.strip_prefix("### ")).collect()
}

#[test]
fn every_reason_has_a_heading_in_the_runbook_and_every_heading_is_a_reason() {
    let headings = headings();
    let known: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    let found: BTreeSet<&str> = headings.iter().copied().collect();
    assert_eq!(found, known);
    assert_eq!(headings.len(), found.len(), "a heading stands once");
}

#[test]
fn what_asks_for_an_action_has_one_in_the_runbook() {
    for section in RUNBOOK.split("\n### ").skip(1) {
        let word = section.lines().next().unwrap();
        let action = Reason::from_word(word).unwrap().action();
        assert!(action.is_empty() || section.contains("**What to do.**"), "{word}");
    }
}

#[test]
fn links_inside_the_runbook_lead_somewhere() {
    let anchors: BTreeSet<String> = headings().iter().map(|heading| heading.to_lowercase()).collect();
    for link in RUNBOOK.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(anchors.contains(anchor), "{anchor}");
    }
}
