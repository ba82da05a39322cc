//! The facts of a simulated installation, whether the engine knows them or not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{CloudRunTarget, IdentityProvider, MappingMode, RoleMapping};
use crate::model::{ConditionHash, DocumentKey, GrantKey, GroupId, MappingKey, MemberKey, Role, UserId};

pub(super) const DOMAIN: &str = "corp.example";
pub(super) const ROLES: [&str; 2] = ["roles/run.invoker", "roles/run.viewer"];
pub(super) const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
pub(super) const TEAMS: [&str; 3] = ["red", "blue", "green"];

pub(super) fn document(service: &str) -> DocumentKey {
    format!("run:projects/p/locations/l/services/{service}").parse().expect("a document")
}

pub(super) fn role(name: &str) -> Role {
    Role::new(name).expect("a role")
}

pub(super) fn grant(role_name: &str, address: &str) -> GrantKey {
    let member = MemberKey::of(&format!("user:{address}"));
    GrantKey { role: role(role_name), condition: ConditionHash::default(), member }
}

pub(super) fn address(number: usize) -> String {
    format!("p{number}@{DOMAIN}")
}

/// A person in the directory.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) active: bool,
    pub(super) deleted: bool,
    /// The value from which the principal is derived.
    pub(super) address: Option<String>,
    /// Since when they are inactive or deleted.
    pub(super) left_at: Option<Timestamp>,
    /// Earlier periods of being inactive or deleted.
    pub(super) was_away: Vec<(Timestamp, Timestamp)>,
}

impl Person {
    /// True when the person was inactive or deleted at this moment, or until shortly before.
    pub(super) fn was_away(&self, at: Timestamp) -> bool {
        let recently = at.saturating_sub(super::expect::SETTLED).unwrap_or(Timestamp::MIN);
        self.left_at.is_some_and(|left| left <= at)
            || self.was_away.iter().any(|(from, until)| *from <= at && *until >= recently)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Team {
    pub(super) name: String,
    pub(super) deleted: bool,
    pub(super) members: BTreeSet<UserId>,
}

/// The content of a mapping object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) team: String,
    /// Names, or `*`.
    pub(super) services: Vec<String>,
    pub(super) roles: Vec<String>,
    pub(super) mode: MappingMode,
    pub(super) report: bool,
    pub(super) orphan: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Live,
    /// The object has a deletion timestamp and our finalizer.
    Terminating,
    /// The object disappeared without our finalizer.
    Missing,
}

#[derive(Debug, Clone)]
pub(super) struct Mapping {
    pub(super) uid: u64,
    pub(super) generation: i64,
    pub(super) spec: Spec,
    pub(super) accepted: BTreeSet<GroupId>,
    pub(super) asked: u64,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub(super) generation: i64,
    pub(super) suspended: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) generation: i64,
    pub(super) asked: u64,
    /// The roles that are delegated.
    pub(super) roles: Vec<String>,
}

/// Properties that do not change within one seed.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// True when the principal is the primary address instead of the userName.
    pub(super) by_email: bool,
    pub(super) permits_suspend: bool,
    pub(super) permits_orphan: bool,
}

/// All facts.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) setup: Setup,
    pub(super) people: BTreeMap<UserId, Person>,
    pub(super) teams: BTreeMap<GroupId, Team>,
    pub(super) mappings: BTreeMap<MappingKey, Mapping>,
    pub(super) provider: Option<Provider>,
    pub(super) target: Option<Target>,
    pub(super) aliases: BTreeMap<MemberKey, String>,
    /// Missing mappings whose claims the engine has frozen.
    pub(super) vanished: BTreeSet<MappingKey>,
    /// Number of created objects.
    pub(super) objects: u64,
}

impl Facts {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            setup,
            people: BTreeMap::new(),
            teams: BTreeMap::new(),
            mappings: BTreeMap::new(),
            provider: None,
            target: None,
            aliases: BTreeMap::new(),
            vanished: BTreeSet::new(),
            objects: 0,
        }
    }

    pub(super) fn has_left(&self, id: UserId) -> bool {
        self.people.get(&id).is_none_or(|person| person.left_at.is_some())
    }

    /// The grant as the target stores it.
    pub(super) fn stored(&self, grant: &GrantKey) -> GrantKey {
        let member = self.aliases.get(&grant.member).map_or(grant.member.clone(), |primary| MemberKey::of(primary));
        GrantKey { member, ..grant.clone() }
    }

    pub(super) fn provider_object(&self) -> Option<IdentityProvider> {
        let Provider { generation, suspended } = self.provider.as_ref()?;
        let attribute = if self.setup.by_email { "emails[primary eq true].value" } else { "userName" };
        let state = if *suspended { "Suspended" } else { "Active" };
        let spec = json!({
            "scim": {"tokens": [{"name": "a", "secretRef": {"name": "s"}}]},
            "principals": {"allowedDomains": [DOMAIN], "users": {"googleAccount": {"attribute": attribute}}},
            "state": state,
        });
        Some(object("IdentityProvider", json!({"name": "okta", "uid": "okta", "generation": generation}), &spec))
    }

    pub(super) fn target_object(&self) -> Option<CloudRunTarget> {
        let Target { generation, asked, roles } = self.target.as_ref()?;
        let permits = [("Suspend", self.setup.permits_suspend), ("Orphan", self.setup.permits_orphan)];
        let permit: Vec<&str> = permits.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
        let allow = if roles.is_empty() {
            json!([])
        } else {
            json!([{
                "namespaces": {"names": ["team"]}, "identityProviders": ["okta"], "resources": ["services/*"],
                "roles": roles, "permit": permit,
            }])
        };
        let spec = json!({"project": "p", "locations": ["l"], "discoveryInterval": "1m", "allow": allow});
        let annotations = json!({"rolecall.dev/reconcile-requested-at": asked.to_string()});
        let metadata = json!({"name": "t", "uid": "t", "generation": generation, "annotations": annotations});
        Some(object("CloudRunTarget", metadata, &spec))
    }
}

impl Mapping {
    pub(super) fn object(&self, key: &MappingKey) -> RoleMapping {
        let Spec { team, services, roles, mode, report, orphan } = &self.spec;
        let resources: Vec<String> = services.iter().map(|service| format!("services/{service}")).collect();
        let spec = json!({
            "subjects": [{"identityProvider": "okta", "groups": [{"displayName": team}]}],
            "grants": [{"target": {"name": "t"}, "resources": resources, "roles": roles}],
            "mode": mode,
            "onMissing": if *report { "Report" } else { "Revert" },
            "deletionPolicy": if *orphan { "Orphan" } else { "Revoke" },
        });
        let accepted: Vec<String> = self.accepted.iter().map(ToString::to_string).collect();
        let annotations = json!({
            "rolecall.dev/accept-group": accepted.join(","),
            "rolecall.dev/reconcile-requested-at": self.asked.to_string(),
        });
        let metadata = json!({
            "name": key.name(), "namespace": key.namespace(), "uid": format!("m{}", self.uid),
            "generation": self.generation, "annotations": annotations,
        });
        object("RoleMapping", metadata, &spec)
    }
}

impl Spec {
    pub(super) fn matches(&self, document: &DocumentKey) -> bool {
        self.services.iter().any(|service| service == "*" || service == document.name())
    }
}

fn object<T: serde::de::DeserializeOwned>(kind: &str, mut metadata: Value, spec: &Value) -> T {
    metadata["creationTimestamp"] = json!("2027-01-31T12:00:00Z");
    let object = json!({"apiVersion": "rolecall.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    serde_json::from_value(object).expect("an object")
}
