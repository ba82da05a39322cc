//! Test fixtures of the catalog.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::model::{EmailFact, GroupFacts, Subject, UserFacts, UserId};

pub(super) const INVOKER: &str = "roles/run.invoker";
pub(super) const VIEWER: &str = "roles/run.viewer";

pub(super) fn provider(name: &str) -> ProviderName {
    ProviderName::new(name).unwrap()
}

pub(super) fn target(name: &str) -> TargetName {
    TargetName::new(name).unwrap()
}

pub(super) fn key(name: &str) -> MappingKey {
    MappingKey::new("team", name).unwrap()
}

pub(super) fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

pub(super) fn group(n: u128) -> GroupId {
    GroupId(Uuid::from_u128(1000 + n))
}

pub(super) fn document(service: &str) -> DocumentKey {
    document_in("l", service)
}

pub(super) fn document_in(location: &str, service: &str) -> DocumentKey {
    format!("run:projects/p/locations/{location}/services/{service}").parse().unwrap()
}

pub(super) fn provider_spec(attribute: &str, domains: &[&str]) -> IdentityProviderSpec {
    serde_json::from_value(json!({
        "scim": {"tokens": [{"name": "a", "secretRef": {"name": "s"}}]},
        "principals": {"allowedDomains": domains, "users": {"googleAccount": {"attribute": attribute}}},
    }))
    .unwrap()
}

pub(super) fn target_spec(locations: &[&str], allow: &Value) -> CloudRunTargetSpec {
    serde_json::from_value(json!({"project": "p", "locations": locations, "allow": allow})).unwrap()
}

pub(super) fn allow(providers: &[&str], resources: &[&str], roles: &[&str]) -> Value {
    json!({"namespaces": {"names": ["team"]}, "identityProviders": providers, "resources": resources, "roles": roles})
}

pub(super) fn allow_all() -> Value {
    json!([allow(&["okta", "entra"], &["services/*"], &[INVOKER, VIEWER])])
}

/// `groups`: names as in `displayName`.
pub(super) fn spec(groups: &[&str], resources: &[&str], roles: &[&str]) -> RoleMappingSpec {
    let groups: Vec<Value> = groups.iter().map(|name| json!({"displayName": name})).collect();
    serde_json::from_value(json!({
        "subjects": [{"identityProvider": "okta", "groups": groups}],
        "grants": [{"target": {"name": "t"}, "resources": resources, "roles": roles}],
    }))
    .unwrap()
}

pub(super) fn facts(n: u128, active: bool) -> UserFacts {
    let email = |value: String, kind: &str| EmailFact { value, kind: Some(kind.to_owned()), primary: kind == "work" };
    UserFacts {
        id: user(n),
        active,
        user_name: format!("p{n}@corp.example"),
        external_id: Some(format!("ext{n}")),
        emails: vec![email(format!("home{n}@corp.example"), "home"), email(format!("Work{n}@corp.example"), "work")],
    }
}

pub(super) fn person(n: u128) -> DirectoryChange {
    DirectoryChange::User(facts(n, true))
}

pub(super) fn inactive(n: u128) -> DirectoryChange {
    DirectoryChange::User(facts(n, false))
}

pub(super) fn named(n: u128, name: &str) -> DirectoryChange {
    DirectoryChange::Group(GroupFacts {
        id: group(n),
        display_name: name.to_owned(),
        external_id: Some(format!("x{n}")),
    })
}

pub(super) fn deleted(n: u128) -> DirectoryChange {
    DirectoryChange::GroupDeleted { id: group(n) }
}

pub(super) fn joined(n: u128, members: &[u128]) -> DirectoryChange {
    DirectoryChange::Members { group: group(n), added: members.iter().map(|n| user(*n)).collect(), removed: vec![] }
}

pub(super) fn left(n: u128, members: &[u128]) -> DirectoryChange {
    DirectoryChange::Members { group: group(n), added: vec![], removed: members.iter().map(|n| user(*n)).collect() }
}

pub(super) fn inventory(services: &[&str]) -> Inventory {
    let item = |service: &&str| InventoryItem {
        document: document(service),
        uid: format!("uid-{service}"),
        labels: BTreeMap::new(),
        invoker_iam_disabled: false,
    };
    Inventory { resources: services.iter().map(item).collect(), unlisted: BTreeSet::new() }
}

pub(super) fn okta() -> ProviderName {
    provider("okta")
}

/// An index with the provider Okta, the people 1..=4, the groups `red` (1, 2) and `blue` (2, 3), and the target `t`
/// with services a and b, fully delegated. Nothing is frozen.
pub(super) fn index() -> Catalog {
    let mut index = Catalog::new(Ceiling::Enforce);
    index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
    index.apply_target(target("t"), target_spec(&["l"], &allow_all()), Timestamp::UNIX_EPOCH);
    index.apply_inventory(&target("t"), inventory(&["a", "b"]));
    for change in [
        person(1),
        person(2),
        person(3),
        person(4),
        named(1, "red"),
        named(2, "blue"),
        joined(1, &[1, 2]),
        joined(2, &[2, 3]),
    ] {
        index.apply_directory(&okta(), &change);
    }
    index.freeze_all(None);
    index
}

impl Catalog {
    pub(super) fn map(&mut self, name: &str, spec: RoleMappingSpec) -> Effects {
        self.put_mapping(key(name), 1, spec, BTreeSet::new())
    }

    /// Stores pins before anything else happens, as the engine does.
    fn stored(&mut self, mut effects: Effects) -> Effects {
        let pins = effects.pins.clone();
        effects.merge(self.pins_stored(&pins));
        effects
    }

    pub(super) fn put_mapping(
        &mut self,
        key: MappingKey,
        generation: i64,
        spec: RoleMappingSpec,
        accepted: BTreeSet<GroupId>,
    ) -> Effects {
        let effects = self.apply_mapping(key, generation, spec, accepted);
        self.stored(effects)
    }

    pub(super) fn put_directory(&mut self, provider: &ProviderName, change: &DirectoryChange) -> Effects {
        let effects = self.apply_directory(provider, change);
        self.stored(effects)
    }

    pub(super) fn put_freeze(&mut self, why: Option<FreezeReason>) -> Effects {
        let effects = self.freeze_all(why);
        self.stored(effects)
    }

    pub(super) fn mark_missing(&mut self, name: &str) -> Effects {
        self.advance(&key(name), PhaseEvent::FoundMissing(FreezeReason::MappingMissing))
    }

    pub(super) fn delete(&mut self, name: &str) -> Effects {
        self.advance(&key(name), PhaseEvent::DeletionObserved(self.disposal(&key(name))))
    }

    pub(super) fn change(&mut self, change: &DirectoryChange) -> Effects {
        self.put_directory(&okta(), change)
    }

    /// The grants wanted on a document when every mapping that reaches it is a claimant: `role member mapping subject`.
    pub(super) fn wanted(&self, document: &DocumentKey) -> Vec<String> {
        let desired = self.desired(document, &BTreeSet::new());
        let mut lines = Vec::new();
        for (grant, wanted) in &desired.grants {
            for (claim, terms) in &wanted.claims {
                let Subject::User(id) = claim.subject else { panic!("no groups yet") };
                let mark = if terms.write { "" } else { " observed" };
                let role = grant.role.as_str().trim_start_matches("roles/run.");
                lines.push(format!("{role} {} {} {}{mark}", wanted.member, claim.mapping.name(), id.0.as_u128()));
            }
        }
        lines
    }

    pub(super) fn people(&self, service: &str) -> BTreeSet<u128> {
        let desired = self.desired(&document(service), &BTreeSet::new());
        let claims = desired.grants.into_values().flat_map(|grant| grant.claims.into_keys());
        claims
            .map(|claim| match claim.subject {
                Subject::User(id) => id.0.as_u128(),
                Subject::Group(id) => id.0.as_u128(),
            })
            .collect()
    }

    pub(super) fn enforcement_of(&self, name: &str, document: &DocumentKey) -> crate::model::Enforcement {
        self.desired(document, &BTreeSet::from([key(name)])).enforcements[&key(name)].clone()
    }
}
