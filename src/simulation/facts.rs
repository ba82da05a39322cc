//! The facts of a simulated installation, whether the engine knows them or not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{CloudRunTarget, IdentityProvider, MappingMode, RoleMapping};
use crate::model::{Condition, ConditionHash, DocumentKey, GrantKey, GroupId, MappingKey, MemberKey, Role, UserId};
use crate::store::UninstallMode;

/// Creation time of objects without one of their own.
const CREATED: &str = "2027-01-31T12:00:00Z";
pub(super) const DOMAIN: &str = "corp.example";
pub(super) const ROLES: [&str; 2] = ["roles/run.invoker", "roles/run.viewer"];
pub(super) const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
pub(super) const TEAMS: [&str; 3] = ["red", "blue", "green"];
/// The names of targets. All cover the same region, which belongs to the oldest one.
pub(super) const TARGETS: [&str; 2] = ["t", "u"];
/// The namespace of all mappings.
pub(super) const NAMESPACE: &str = "team";
/// The condition of mappings that have one.
const CONDITION: (&str, &str) = ("office-hours", "request.time.getHours() < 18");
/// The label by which a namespace is selected.
const LABEL: (&str, &str) = ("access", "delegated");

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
    pub(super) external_id: Option<String>,
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

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Team {
    pub(super) name: String,
    pub(super) external_id: Option<String>,
    pub(super) deleted: bool,
    pub(super) members: BTreeSet<UserId>,
    /// Groups that are members.
    pub(super) nested: BTreeSet<GroupId>,
    /// Names of members that nobody has, or several.
    pub(super) waiting: BTreeSet<Uuid>,
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
    /// The index of the target.
    pub(super) target: usize,
    /// True when the grants have a condition.
    pub(super) conditional: bool,
    /// The time at which the grants end.
    pub(super) end: Option<Timestamp>,
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
    /// Seconds from the start to its creation.
    pub(super) age: i64,
}

/// Properties that do not change within one seed.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub(super) struct Setup {
    /// True when the principal is the primary address instead of the userName.
    pub(super) by_email: bool,
    pub(super) permits_suspend: bool,
    pub(super) permits_orphan: bool,
    /// True when the namespace is admitted by its labels instead of its name.
    pub(super) by_labels: bool,
    /// How many levels of nested groups are followed.
    pub(super) depth: usize,
}

/// All facts.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Number of accesses that may have changed something.
    pub(super) version: u64,
    pub(super) setup: Setup,
    pub(super) people: BTreeMap<UserId, Person>,
    pub(super) teams: BTreeMap<GroupId, Team>,
    pub(super) mappings: BTreeMap<MappingKey, Mapping>,
    pub(super) provider: Option<Provider>,
    pub(super) targets: [Option<Target>; TARGETS.len()],
    /// True when the namespace has the label by which it is selected.
    pub(super) labelled: bool,
    /// True when the leader runs with `--mode observe`.
    pub(super) observes: bool,
    /// The requested uninstall.
    pub(super) uninstall: Option<UninstallMode>,
    pub(super) aliases: BTreeMap<MemberKey, String>,
    /// Missing mappings whose claims the engine has frozen.
    pub(super) vanished: BTreeSet<MappingKey>,
    /// Number of created objects.
    pub(super) objects: u64,
    /// The conditions under which grants end, with the times.
    pub(super) ends: BTreeMap<ConditionHash, Timestamp>,
}

impl Facts {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            version: 1,
            setup,
            people: BTreeMap::new(),
            teams: BTreeMap::new(),
            mappings: BTreeMap::new(),
            provider: None,
            targets: [None, None],
            labelled: true,
            observes: false,
            uninstall: None,
            aliases: BTreeMap::new(),
            vanished: BTreeSet::new(),
            objects: 0,
            ends: BTreeMap::new(),
        }
    }

    /// Creates or edits a mapping.
    pub(super) fn put_mapping(&mut self, key: MappingKey, mapping: Mapping) {
        if let Some(end) = mapping.spec.end {
            self.ends.insert(ConditionHash::of(mapping.spec.condition().as_ref()), end);
        }
        self.mappings.insert(key, mapping);
    }

    /// True when some grant ended at this time or before.
    pub(super) fn any_is_over(&self, now: Timestamp) -> bool {
        self.ends.values().any(|end| *end <= now)
    }

    /// True when the grant ended at this time or before.
    pub(super) fn is_over(&self, grant: &GrantKey, now: Timestamp) -> bool {
        self.ends.get(&grant.condition).is_some_and(|end| *end <= now)
    }

    /// The oldest target, which the region belongs to, with its index.
    fn owner(&self) -> Option<(usize, &Target)> {
        let targets = self.targets.iter().enumerate();
        targets
            .filter_map(|(index, target)| Some((index, target.as_ref()?)))
            .min_by_key(|(index, target)| (target.age, *index))
    }

    /// The index of the target that the region belongs to.
    pub(super) fn owner_index(&self) -> usize {
        self.owner().map_or(0, |(index, _)| index)
    }

    /// True when there is any target.
    pub(super) fn is_covered(&self) -> bool {
        self.owner().is_some()
    }

    /// True when the region belongs to the target that the mapping names.
    pub(super) fn covers(&self, spec: &Spec) -> bool {
        self.owner().is_some_and(|(index, _)| index == spec.target)
    }

    /// True when the target that the region belongs to delegates the role.
    pub(super) fn delegates(&self, role: &str) -> bool {
        let admitted = self.labelled || !self.setup.by_labels;
        admitted && self.owner().is_some_and(|(_, target)| target.roles.iter().any(|delegated| delegated == role))
    }

    /// The labels of the namespace.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let label = self.labelled.then(|| (LABEL.0.to_owned(), LABEL.1.to_owned()));
        label.into_iter().collect()
    }

    pub(super) fn has_left(&self, id: UserId) -> bool {
        self.people.get(&id).is_none_or(|person| person.left_at.is_some())
    }

    /// True when the person has an address, and neither this member nor the spelling that the target stores is it.
    pub(super) fn has_moved(&self, id: UserId, member: &MemberKey) -> bool {
        let address = self.people.get(&id).and_then(|person| person.address.as_ref());
        address.is_some_and(|address| {
            let sent = MemberKey::of(&format!("user:{address}"));
            let stored = self.aliases.get(&sent).map(|primary| MemberKey::of(primary));
            let is_it = *member == sent || stored.is_some_and(|stored| *member == stored);
            !is_it || !address.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(DOMAIN))
        })
    }

    /// The groups nested in a group, itself included; none when a level is beyond those that are followed.
    pub(super) fn nested(&self, root: GroupId) -> Option<BTreeSet<GroupId>> {
        let mut found = BTreeSet::from([root]);
        let mut level = found.clone();
        for depth in 0.. {
            let nested = |id: &GroupId| self.teams.get(id).map(|team| team.nested.clone()).unwrap_or_default();
            let next: BTreeSet<GroupId> = level.iter().flat_map(nested).filter(|id| !found.contains(id)).collect();
            if next.is_empty() {
                break;
            }
            if depth == self.setup.depth {
                return None;
            }
            found.extend(&next);
            level = next;
        }
        Some(found)
    }

    /// The people of a group and of those nested in it; those of the group alone when there are too many levels.
    pub(super) fn people_of(&self, root: GroupId) -> BTreeSet<UserId> {
        let groups = self.nested(root).unwrap_or_else(|| BTreeSet::from([root]));
        groups.iter().filter_map(|id| self.teams.get(id)).flat_map(|team| team.members.clone()).collect()
    }

    /// True when the person is a direct member of any group.
    pub(super) fn is_in_a_group(&self, id: UserId) -> bool {
        self.teams.values().any(|team| !team.deleted && team.members.contains(&id))
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

    pub(super) fn target_object(&self, index: usize) -> Option<CloudRunTarget> {
        let Target { generation, asked, roles, age } = self.targets[index].as_ref()?;
        let permits = [("Suspend", self.setup.permits_suspend), ("Orphan", self.setup.permits_orphan)];
        let permit: Vec<&str> = permits.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
        let namespaces = if self.setup.by_labels {
            json!({"matchLabels": {(LABEL.0): LABEL.1}})
        } else {
            json!({"names": [NAMESPACE]})
        };
        let allow = if roles.is_empty() {
            json!([])
        } else {
            json!([{
                "namespaces": namespaces, "identityProviders": ["okta"], "resources": ["services/*"],
                "roles": roles, "permit": permit,
            }])
        };
        let spec = json!({"project": "p", "locations": ["l"], "discoveryInterval": "1m", "allow": allow});
        let annotations = json!({"rolecall.dev/reconcile-requested-at": asked.to_string()});
        let name = TARGETS[index];
        let created: Timestamp = CREATED.parse().expect("a time");
        let metadata = json!({
            "name": name, "uid": name, "generation": generation, "annotations": annotations,
            "creationTimestamp": (created + SignedDuration::from_secs(*age)).to_string(),
        });
        Some(object("CloudRunTarget", metadata, &spec))
    }
}

/// The locked facts. Mutable access counts as a change.
pub(super) struct Locked<'a>(pub(super) MutexGuard<'a, Facts>);

impl Deref for Locked<'_> {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Facts {
        self.0.version += 1;
        &mut self.0
    }
}

impl Mapping {
    pub(super) fn object(&self, key: &MappingKey) -> RoleMapping {
        let Spec { team, services, roles, mode, report, orphan, target, conditional, end } = &self.spec;
        let resources: Vec<String> = services.iter().map(|service| format!("services/{service}")).collect();
        let spec = json!({
            "subjects": [{"identityProvider": "okta", "groups": [{"displayName": team}]}],
            "grants": [{
                "target": {"name": TARGETS[*target]}, "resources": resources, "roles": roles,
                "condition": conditional.then(|| json!({"title": CONDITION.0, "expression": CONDITION.1})),
                "notAfter": end.map(|end| end.to_string()),
            }],
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
    /// The condition that grants of this mapping have.
    fn condition(&self) -> Option<Condition> {
        let (title, expression) = CONDITION;
        let (title, expression) = (title.to_owned(), expression.to_owned());
        let base = self.conditional.then(|| Condition { title, expression, ..Condition::default() });
        match self.end {
            Some(end) => Condition::ending(base.as_ref(), end),
            None => base,
        }
    }

    /// A grant of this mapping.
    pub(super) fn grant(&self, role_name: &str, address: &str) -> GrantKey {
        GrantKey { condition: ConditionHash::of(self.condition().as_ref()), ..grant(role_name, address) }
    }

    pub(super) fn matches(&self, document: &DocumentKey) -> bool {
        self.services.iter().any(|service| service == "*" || service == document.name())
    }
}

fn object<T: serde::de::DeserializeOwned>(kind: &str, mut metadata: Value, spec: &Value) -> T {
    if metadata.get("creationTimestamp").is_none() {
        metadata["creationTimestamp"] = json!(CREATED);
    }
    let object = json!({"apiVersion": "rolecall.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    serde_json::from_value(object).expect("an object")
}
