//! Service accounts of a project, as the IAM API serves them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::error::ApiError;
use crate::policy;
use crate::resource::Target;
use crate::world::World;

/// Default and largest number of service accounts on a page.
const PAGE: (usize, usize) = (20, 100);

/// A service account.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// The numeric id, which no other account ever has.
    pub(crate) unique_id: String,
    pub(crate) display_name: String,
}

/// The service accounts by project number and e-mail.
pub(crate) type Accounts = BTreeMap<(u64, String), Account>;

/// Creates an account, or replaces one of that name together with its policy.
pub(crate) fn insert(world: &mut World, project: u64, email: &str, display_name: String) {
    remove(world, project, email);
    world.last_resource += 1;
    let unique_id = format!("1{:020}", world.last_resource);
    world.accounts.insert((project, email.to_owned()), Account { unique_id, display_name });
}

/// Removes an account and its policy.
pub(crate) fn remove(world: &mut World, project: u64, email: &str) -> Option<Account> {
    let account = world.accounts.remove(&(project, email.to_owned()))?;
    world.drop_policy(&Target::ServiceAccount { project, email: email.to_owned() });
    Some(account)
}

/// The error for an account that does not exist.
pub(crate) fn unknown() -> ApiError {
    ApiError::new(404, "NOT_FOUND", "Unknown service account")
}

/// Refuses a caller without the permission, with IAM's text.
pub(crate) fn authorise(world: &World, caller: &str, verb: &str) -> Result<(), ApiError> {
    let permission = format!("iam.serviceAccounts.{verb}");
    if world.callers.holds(caller, &permission) != Some(false) {
        return Ok(());
    }
    let text = format!("Permission '{permission}' denied on resource (or it may not exist).");
    Err(ApiError::new(403, "PERMISSION_DENIED", text).with_details(json!([{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "IAM_PERMISSION_DENIED",
        "domain": "iam.googleapis.com",
        "metadata": { "permission": permission },
    }])))
}

/// The account with this e-mail or unique id, in this project or, with `-`, in any.
pub(crate) fn find(world: &mut World, project: &str, name: &str) -> Option<Target> {
    let within = if project == "-" { None } else { Some(world.projects.resolve(project)?) };
    let is_it = |email: &str, account: &Account| email.eq_ignore_ascii_case(name) || account.unique_id == name;
    let found = world
        .accounts
        .iter()
        .find(|((project, email), account)| within.is_none_or(|own| own == *project) && is_it(email, account));
    match (found, within) {
        (Some(((project, email), _)), _) => Some(Target::ServiceAccount { project: *project, email: email.clone() }),
        (None, Some(project)) => Some(Target::ServiceAccount { project, email: name.to_owned() }),
        (None, None) => None,
    }
}

fn view(world: &World, project: u64, email: &str, account: &Account) -> Value {
    let id = world.projects.id(project);
    let mut object = json!({
        "name": format!("projects/{id}/serviceAccounts/{email}"),
        "projectId": id,
        "uniqueId": account.unique_id,
        "email": email,
        "etag": "MDEwMjE5MjA=",
        "oauth2ClientId": account.unique_id,
    });
    if !account.display_name.is_empty() {
        object["displayName"] = json!(account.display_name);
    }
    object
}

/// `GET v1/projects/{p}/serviceAccounts`
pub(crate) fn list(world: &World, call: &Call, caller: &str, project: u64) -> Result<Value, ApiError> {
    authorise(world, caller, "list")?;
    let (usual, most) = PAGE;
    let size = match call.number("pageSize")? {
        None | Some(0) => usual,
        Some(size) => {
            usize::try_from(size).map_err(|_| ApiError::invalid("The page size must not be negative."))?.min(most)
        }
    };
    let after = call.parameter("pageToken").unwrap_or_default();
    let mut rest = world
        .accounts
        .range((project, String::new())..)
        .take_while(|((of, _), _)| *of == project)
        .filter(|((_, email), _)| *email > after);
    let page: Vec<_> = rest.by_ref().take(size).collect();
    let mut reply = Map::new();
    if !page.is_empty() {
        let views = page.iter().map(|((_, email), account)| view(world, project, email, account)).collect();
        reply.insert("accounts".into(), Value::Array(views));
    }
    if let (Some(((_, last), _)), Some(_)) = (page.last(), rest.next()) {
        reply.insert("nextPageToken".into(), json!(last));
    }
    Ok(Value::Object(reply))
}

/// `GET v1/projects/{p}/serviceAccounts/{email or unique id}`
pub(crate) fn get(world: &World, caller: &str, target: Option<&Target>) -> Result<Value, ApiError> {
    authorise(world, caller, "get")?;
    let Some(Target::ServiceAccount { project, email }) = target else { return Err(unknown()) };
    let account = world.accounts.get(&(*project, email.clone())).ok_or_else(unknown)?;
    Ok(view(world, *project, email, account))
}

/// `POST v1/projects/{p}/serviceAccounts`
pub(crate) fn create(world: &mut World, call: &Call, caller: &str, project: u64) -> Result<Value, ApiError> {
    authorise(world, caller, "create")?;
    let body = policy::parse_json(&call.body)?;
    let name = body["accountId"].as_str().unwrap_or_default();
    let is_valid = (6..=30).contains(&name.len()) && crate::resource::is_resource_name(name);
    if !is_valid {
        return Err(ApiError::invalid(format!("Service account ID '{name}' is invalid.")));
    }
    let email = address(world.projects.id(project), name);
    if world.accounts.contains_key(&(project, email.clone())) {
        let text =
            format!("Service account {name} already exists within project projects/{}.", world.projects.id(project));
        return Err(ApiError::new(409, "ALREADY_EXISTS", text));
    }
    insert(world, project, &email, body["serviceAccount"]["displayName"].as_str().unwrap_or_default().to_owned());
    world.trace.committed = true;
    get(world, caller, Some(&Target::ServiceAccount { project, email }))
}

/// `DELETE v1/projects/{p}/serviceAccounts/{email or unique id}`
pub(crate) fn delete(world: &mut World, caller: &str, target: Option<&Target>) -> Result<Value, ApiError> {
    authorise(world, caller, "delete")?;
    let Some(Target::ServiceAccount { project, email }) = target else { return Err(unknown()) };
    remove(world, *project, email).ok_or_else(unknown)?;
    Ok(json!({}))
}

/// The e-mail of an account that a project creates. The id of a project of a domain is written the other way round.
pub(crate) fn address(project: &str, name: &str) -> String {
    let host = match project.split_once(':') {
        Some((domain, id)) => format!("{id}.{domain}"),
        None => project.to_owned(),
    };
    format!("{name}@{host}.iam.gserviceaccount.com")
}
