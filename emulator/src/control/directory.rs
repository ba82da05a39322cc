//! The control API of accounts.

use serde_json::{Value, json};

use super::{fields, missing, optional_number, strings, wrong};
use crate::ControlError;
use crate::directory::{Directory, Entry};
use crate::member::{self, Account};
use crate::snapshot::number;
use crate::world::{Trace, World};

/// Fields of a change of the directory.
pub(super) const FIELDS: [&str; 8] =
    ["mode", "users", "groups", "serviceAccounts", "canonical", "aliases", "allowedDomains", "existsInMs"];
/// Actions on one account: `directory/delete`, `directory/undelete`.
pub(super) const ACTIONS: [&str; 2] = ["delete", "undelete"];

/// Adds, deletes, undeletes or lists accounts.
pub(super) fn answer(world: &mut World, method: &str, action: &str, body: &Value) -> Result<Value, ControlError> {
    match (method, action) {
        ("GET", "") => Ok(directory_view(world)),
        ("DELETE", "") => {
            world.directory = Directory::default();
            Ok(directory_view(world))
        }
        ("POST" | "PUT" | "PATCH", "") => {
            change_directory(world, body)?;
            Ok(directory_view(world))
        }
        ("POST", action) if ACTIONS.contains(&action) => {
            let object = fields(body, &["member", "uid"])?;
            let name = object.get("member").and_then(Value::as_str).ok_or_else(|| wrong("`member` is missing"))?;
            let folded = member::fold(name);
            if !Account::ALL.iter().any(|kind| folded.starts_with(&format!("{}:", kind.prefix()))) {
                return Err(wrong(format!("`{name}` is no user, group or service account")));
            }
            let entry = world.directory.accounts.entry(folded.clone()).or_default();
            let changed = if action == "delete" {
                let uid =
                    object.get("uid").and_then(number).map_or_else(|| default_uid(&folded), |uid| uid.to_string());
                entry.deleted_uid = Some(uid.clone());
                world.respell(|held| (member::fold(held) == folded).then(|| format!("deleted:{held}?uid={uid}")))
            } else {
                let Some(uid) = entry.deleted_uid.take() else { return Err(wrong(format!("`{name}` is not deleted"))) };
                let suffix = format!("?uid={uid}");
                world.respell(|held| {
                    let alive = held.strip_prefix("deleted:")?.strip_suffix(&suffix)?;
                    (member::fold(alive) == folded).then(|| alive.to_owned())
                })
            };
            world.trace = Trace::default();
            Ok(json!({ "policiesChanged": changed }))
        }
        _ => Err(missing(format!("there is no `{method}` on `directory/{action}`"))),
    }
}

/// 21 digits derived from the account alone.
fn default_uid(folded: &str) -> String {
    let sum = folded.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(1_099_511_628_211) ^ u64::from(byte));
    format!("1{sum:020}")
}

fn change_directory(world: &mut World, body: &Value) -> Result<(), ControlError> {
    let object = fields(body, &FIELDS)?;
    let strict = match object.get("mode").and_then(Value::as_str) {
        None if object.contains_key("mode") => return Err(wrong("`mode` must be `strict` or `permissive`")),
        None => world.directory.strict,
        Some("strict") => true,
        Some("permissive") => false,
        Some(other) => return Err(wrong(format!("`mode` must be `strict` or `permissive`, not `{other}`"))),
    };
    let now = world.clock.micros();
    let exists_from = match optional_number(object, "existsInMs")? {
        None => 0,
        Some(milliseconds) => now.saturating_add(milliseconds.saturating_mul(1000)),
    };
    let get = |name: &str| object.get(name).unwrap_or(&Value::Null);
    let mut added = Vec::new();
    let mut memberships = Vec::new();
    for (field, kind) in [("users", Account::User), ("groups", Account::Group), ("serviceAccounts", Account::Service)] {
        let emails = match get(field) {
            Value::Object(groups) if kind == Account::Group => {
                for (email, members) in groups {
                    memberships.push((member::fold(&format!("group:{email}")), strings(members, "groups")?));
                }
                groups.keys().cloned().collect()
            }
            list => strings(list, field)?,
        };
        for email in emails {
            let name = format!("{}:{email}", kind.prefix());
            member::parse(&name).map_err(|error| wrong(format!("`{field}`: {}", error.message)))?;
            added.push(member::fold(&name));
        }
    }
    let canonical = strings(get("canonical"), "canonical")?;
    let aliases = match get("aliases") {
        Value::Null => Vec::new(),
        Value::Object(map) => map
            .iter()
            .map(|(alias, primary)| {
                let primary = primary.as_str().ok_or_else(|| wrong("`aliases` must map addresses to addresses"))?;
                Ok((alias.to_lowercase(), primary.to_owned()))
            })
            .collect::<Result<Vec<_>, ControlError>>()?,
        _ => return Err(wrong("`aliases` must map addresses to addresses")),
    };
    let allowed = match object.get("allowedDomains") {
        None => world.directory.allowed_domains.clone(),
        Some(Value::Null) => None,
        Some(list) => Some(strings(list, "allowedDomains")?),
    };
    // Everything is valid: apply it.
    let directory = &mut world.directory;
    directory.strict = strict;
    directory.allowed_domains = allowed;
    for name in added {
        // An account that is created again is a new one; the deleted account of that name stays deleted in the
        // policies.
        directory.accounts.insert(name, Entry { exists_from, deleted_uid: None });
    }
    directory.memberships.extend(memberships);
    directory.canonical.extend(canonical.into_iter().map(|spelling| (member::fold(&spelling), spelling)));
    directory.aliases.extend(aliases);
    Ok(())
}

fn directory_view(world: &World) -> Value {
    let directory = &world.directory;
    let accounts: Vec<Value> = directory
        .accounts
        .iter()
        .map(|(member, entry)| json!({ "member": member, "deletedUid": entry.deleted_uid }))
        .collect();
    json!({
        "mode": if directory.strict { "strict" } else { "permissive" },
        "accounts": accounts,
        "canonical": directory.canonical.values().collect::<Vec<_>>(),
        "aliases": directory.aliases,
        "allowedDomains": directory.allowed_domains,
    })
}
