//! Applies the changes of a request to a resource, and checks the result against its schemas.

use serde_json::{Map, Value};

use super::conform;
use super::edit::Edit;
use super::error::ScimError;
use super::extension;
use super::finding::{FindingCode, Findings};
use super::respell::respelled;
use super::schema::{Home, ResourceType};
use super::work::Work;

/// Changes, each with the index of its operation in a PATCH.
pub(super) type Edits = [(Option<usize>, Edit)];

/// The resource of a POST.
///
/// # Errors
/// The first refusal.
pub(super) fn created(of: ResourceType, edits: &Edits, work: &mut Work) -> Result<Value, ScimError> {
    let (resource, problems) = run(of, edits, None, Map::new(), work)?;
    match problems.into_iter().next() {
        Some((_, problem)) => Err(problem),
        None => Ok(finished(of, resource)),
    }
}

/// A resource after a PUT (`replace`) or PATCH. Where a change takes access away, what does not fit the schema of an
/// extension of users or groups is left as it was, with a finding, so that a schema never keeps a leaver in.
///
/// # Errors
/// The first refusal.
pub(super) fn changed(
    of: ResourceType,
    edits: &Edits,
    (current, replace): (&Value, bool),
    work: &mut Work,
    findings: &mut Findings,
    takes_away: impl FnOnce(&Map<String, Value>, &Map<String, Value>) -> bool,
) -> Result<Value, ScimError> {
    let Value::Object(current) = current else { return Err(ScimError::Internal) };
    let before = &*respelled(of, current);
    let start = if replace { kept(of, edits, before) } else { before.clone() };
    let (mut resource, problems) = run(of, edits, Some(before), start, work)?;
    if !problems.is_empty() && takes_away(before, &resource) {
        for (urn, _) in &problems {
            match before.get(*urn) {
                Some(there) => drop(resource.insert((*urn).to_owned(), there.clone())),
                None => drop(resource.shift_remove(*urn)),
            }
            findings.note(FindingCode::ExtensionKept, urn);
        }
    } else if let Some((_, problem)) = problems.into_iter().next() {
        return Err(problem);
    }
    Ok(finished(of, resource))
}

/// What a PUT that does not mention it leaves as it is: whether somebody is active, the `externalId`, and what can be
/// set only once (RFC 7644 §3.5.1).
fn kept(of: ResourceType, edits: &Edits, before: &Map<String, Value>) -> Map<String, Value> {
    let activity = if of.home() == Home::Users { Some("active") } else { None };
    let names = activity.into_iter().chain(["externalId"]);
    let mut kept: Map<String, Value> =
        names.filter_map(|name| Some((name.to_owned(), before.get(name)?.clone()))).collect();
    let mentions = |urn: &str| edits.iter().any(|(_, edit)| edit.extension() == Some(urn));
    kept.extend(conform::set_once(of, before, mentions));
    kept
}

/// What does not fit the schemas of extensions that give way.
type Problems = Vec<(&'static str, ScimError)>;

fn run(
    of: ResourceType,
    edits: &Edits,
    before: Option<&Map<String, Value>>,
    mut resource: Map<String, Value>,
    work: &mut Work,
) -> Result<(Map<String, Value>, Problems), ScimError> {
    let manager =
        conform::reference(&resource).cloned().filter(|_| !edits.iter().any(|(_, edit)| edit.sets_reference()));
    let mut problems = Vec::new();
    let mut put_off = |urn: Option<&'static str>, problem: ScimError| match urn {
        Some(urn) if conform::gives_way(of, urn, &problem) => {
            problems.push((urn, problem));
            Ok(())
        }
        _ => Err(problem),
    };
    for (operation, edit) in edits {
        if let Err(problem) = edit.apply(&mut resource, work) {
            let problem = match operation {
                Some(index) => problem.in_operation(*index),
                None => problem,
            };
            put_off(edit.extension(), problem)?;
        }
    }
    conform::drop_stale_reference(manager, &mut resource);
    for extension in of.extensions() {
        if resource.get(extension.urn).is_some_and(|extension| extension.as_object().is_some_and(Map::is_empty)) {
            resource.shift_remove(extension.urn);
        }
    }
    for (urn, problem) in conform::problems(of, before, &resource) {
        put_off(urn, problem)?;
    }
    Ok((resource, problems))
}

/// The resource in its stored form, with `schemas` in front.
fn finished(of: ResourceType, mut resource: Map<String, Value>) -> Value {
    let there = of.extensions().iter().map(|extension| extension.urn).filter(|urn| resource.contains_key(*urn));
    let mut schemas: Vec<Value> = std::iter::once(of.urn()).chain(there).map(Value::from).collect();
    let unknown = extension::kept(&mut resource).into_iter().filter(|urn| of.extension(urn).is_none());
    schemas.extend(unknown.map(Value::String));
    let mut result = Map::new();
    result.insert("schemas".to_owned(), Value::Array(schemas));
    resource.shift_remove("schemas");
    result.append(&mut resource);
    Value::Object(result)
}
