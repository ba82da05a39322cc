//! A digest of the whole index, by which tests compare two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Catalog;
use super::tenant::{GroupState, UserState};
use crate::model::{Enforcement, GroupId, MappingKey};

impl Catalog {
    /// A digest that is equal for two indexes with the same knowledge, however they acquired it: SHA-256 over
    /// directory, pins, resolution and the wanted grants of every document. Its cost covers all of that.
    #[must_use]
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        self.lines(&mut |line| {
            hash.update((line.len() as u64).to_be_bytes());
            hash.update(line.as_bytes());
        });
        hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
            text
        })
    }

    /// The input of the digest, line by line.
    pub(super) fn lines(&self, sink: &mut dyn FnMut(&str)) {
        for (name, tenant) in &self.tenants {
            let users: BTreeMap<_, _> = tenant.users().iter().map(|user| (user.id, user)).collect();
            for (id, user) in users {
                if matches!(user.state, UserState::Active | UserState::Inactive) {
                    let principal = tenant.principal(user);
                    sink(&format!("user {name} {id} {:?} {principal:?} {}", user.state, tenant.collides(user)));
                }
            }
            let groups: BTreeMap<_, _> = tenant.groups().iter().map(|group| (group.id, group)).collect();
            for (id, group) in groups {
                // Deleted groups are loaded after a restart only if a pin refers to them.
                if group.state == GroupState::Deleted && !self.pins.values().any(|pinned| *pinned == id) {
                    continue;
                }
                let external: &Option<Arc<str>> = &group.external_id;
                sink(&format!("group {name} {id} {:?} {:?} {external:?}", group.state, group.display_name));
                let members: BTreeSet<_> = tenant.members(group).map(|user| user.id).collect();
                for member in &members {
                    sink(&format!("member {id} {member}"));
                }
                for nested in group.nested.keys() {
                    sink(&format!("nested {id} {nested}"));
                }
            }
        }
        for (place, group) in &self.pins {
            sink(&format!("pin {place:?} {group}"));
        }
        for key in self.mappings.keys() {
            sink(&format!("mapping {key} {:?}", self.mapping(key)));
        }
        for (document, mappings) in &self.by_document {
            let desired = self.desired(document, mappings);
            sink(&format!("document {document} {:?}", desired.resource_uid));
            for (grant, wanted) in &desired.grants {
                sink(&format!("grant {grant:?} {wanted:?}"));
            }
            let enforcements: &BTreeMap<MappingKey, Enforcement> = &desired.enforcements;
            for (mapping, enforcement) in enforcements {
                sink(&format!("enforcement {mapping} {enforcement:?}"));
            }
        }
        sink(&format!("{:?} {:?}", self.ceiling, self.frozen));
        let groups: BTreeMap<&GroupId, &BTreeSet<MappingKey>> = self.by_group.iter().collect();
        for (group, mappings) in &groups {
            sink(&format!("group {group} means something to {mappings:?}"));
        }
    }
}
