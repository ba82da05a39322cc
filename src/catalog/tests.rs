mod absence;
mod delegation;
mod directory;
mod ends;
mod groups;
mod inventory;
mod nesting;

use std::collections::BTreeSet;

use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::model::{Enforcement, Keep, KeptGroups, MemberKey, Reason, ResourceKind, Subject};

const NOTHING: Enforcement = Enforcement::Live { keep: Keep::Nothing };

fn everything(reason: FreezeReason) -> Enforcement {
    Enforcement::Live { keep: Keep::Everything(reason) }
}

fn kept(people: &[u128]) -> Enforcement {
    Enforcement::Live { keep: Keep::Subjects(people.iter().map(|n| (Subject::User(user(*n)), None)).collect()) }
}

/// The enforcement when some groups of the mapping cannot be resolved.
fn groups(reason: FreezeReason, unresolved: &[u128], known: &[u128]) -> Enforcement {
    let ids = |groups: &[u128]| groups.iter().map(|n| group(*n)).collect();
    let kept = KeptGroups { reason, unresolved: ids(unresolved), known: ids(known), subjects: BTreeMap::new() };
    Enforcement::Live { keep: Keep::Groups(kept) }
}

fn with<const N: usize>(spec: &RoleMappingSpec, fields: [(&str, serde_json::Value); N]) -> RoleMappingSpec {
    let mut value = serde_json::to_value(spec).unwrap();
    for (name, field) in fields {
        value[name] = field;
    }
    serde_json::from_value(value).unwrap()
}
