//! `POST /Bulk` (RFC 7644 §3.7). Each operation is a request of its own: it is stored or refused as a whole.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::Answer;
use super::call::{Call, Object};
use super::request::Versions;
use super::resource::{Change, Resource};
use super::store_error;
use crate::scim::{BULK_RESPONSE_URN, BulkAction, BulkRequest, Home, ResourceType, ScimError, etag};
use crate::store::{DeleteOutcome, GroupRecord, ScimResource, UserRecord};

/// What became of an operation.
struct Done {
    status: u16,
    /// The resource and its version, unless it was deleted.
    resource: Uuid,
    version: Option<i64>,
}

/// Carries out the operations in an order in which each comes after those that it refers to.
///
/// They run in a task of their own, so that a client that goes away leaves no circle half created.
pub(super) async fn bulk(call: Call, body: Object) -> Result<Answer, ScimError> {
    tokio::spawn(carry_out(call, body)).await.unwrap_or(Err(ScimError::Internal))
}

async fn carry_out(call: Call, body: Object) -> Result<Answer, ScimError> {
    let request = BulkRequest::parse(&call.scim().types.all(), body.members, &mut call.findings(), Uuid::new_v4)?;
    let mut run = Run { call: &call, request: &request, done: (0..request.operations.len()).map(|_| None).collect() };
    let mut errors = 0;
    for group in request.order() {
        let stop = |errors: usize| request.fail_on_errors.is_some_and(|limit| errors >= limit);
        let circle: BTreeSet<usize> = group.iter().copied().collect();
        for index in &group {
            let earlier = run.call.begin_findings();
            let outcome = run.one(*index, &circle).await;
            run.call.end_findings(earlier);
            errors += usize::from(outcome.is_err());
            run.put(*index, outcome);
            if stop(errors) {
                break;
            }
        }
        errors += run.undo(&circle).await?;
        if stop(errors) {
            break;
        }
    }
    let operations: Vec<Value> = run.answers();
    Ok(Answer::ok(json!({"schemas": [BULK_RESPONSE_URN], "Operations": operations})))
}

struct Run<'a> {
    call: &'a Call,
    request: &'a BulkRequest,
    /// By operation; none: not tried.
    done: Vec<Option<Result<Done, ScimError>>>,
}

impl Run<'_> {
    fn put(&mut self, index: usize, outcome: Result<Done, ScimError>) {
        if let Err(refusal) = &outcome
            && let Some(code) = refusal.finding()
        {
            self.call.findings().note(code, &refusal.attribute().unwrap_or_default());
        }
        if let Some(slot) = self.done.get_mut(index) {
            *slot = Some(outcome);
        }
    }

    fn succeeded(&self, index: usize) -> bool {
        self.done.get(index).is_some_and(|done| matches!(done, Some(Ok(_))))
    }

    /// Carries out one operation. References inside `circle` are to resources that may come later.
    async fn one(&self, index: usize, circle: &BTreeSet<usize>) -> Result<Done, ScimError> {
        let operation = self.request.operations.get(index).ok_or(ScimError::Internal)?;
        let (_, of) = operation.action.as_ref().map_err(Clone::clone)?;
        for needed in self.request.needs(index)? {
            if !circle.contains(&needed) && !self.succeeded(needed) {
                return Err(self.missing(needed));
            }
        }
        match of.home() {
            Home::Users => self.of::<UserRecord>(*of, index).await,
            Home::Groups => self.of::<GroupRecord>(*of, index).await,
            Home::Resources => self.of::<ScimResource>(*of, index).await,
        }
    }

    fn missing(&self, needed: usize) -> ScimError {
        let bulk_id = self.request.operations.get(needed).and_then(|operation| operation.bulk_id.as_deref());
        let bulk_id: String = bulk_id.unwrap_or_default().chars().take(60).collect();
        ScimError::InvalidValue(format!("the resource with the bulkId `{bulk_id}` that this refers to was not created"))
    }

    async fn of<R: Resource>(&self, of: ResourceType, index: usize) -> Result<Done, ScimError> {
        let (call, request) = (self.call, self.request);
        let operation = request.operations.get(index).ok_or(ScimError::Internal)?;
        let (action, _) = operation.action.as_ref().map_err(Clone::clone)?;
        let if_match = operation.version.as_deref().map(Versions::from_text);
        let no_such = |id: Uuid| {
            ScimError::NotFound(format!("there is no {} with the id `{id}`", of.name().to_ascii_lowercase()))
        };
        let changed = async |id: Uuid, change: Change, if_match: Option<Versions>| {
            let resource = R::change(call, of, id, change, if_match).await?.ok_or_else(|| no_such(id))?;
            Ok(Done { status: 200, resource: id, version: Some(resource.version()) })
        };
        match action {
            BulkAction::Create => {
                let resource = R::create(call, of, operation.id, request.data(index)?).await?;
                Ok(Done { status: 201, resource: operation.id, version: Some(resource.version()) })
            }
            BulkAction::Replace(target) => {
                changed(request.target(target)?, Change::Replace(request.data(index)?), if_match).await
            }
            BulkAction::Modify(target) => {
                changed(request.target(target)?, Change::Modify(request.data(index)?), if_match).await
            }
            BulkAction::Delete(target) => {
                let id = request.target(target)?;
                super::resource::remove::<R>(call, of, id, if_match).await?.ok_or_else(|| no_such(id))?;
                Ok(Done { status: 204, resource: id, version: None })
            }
        }
    }

    /// Where one of those that refer to each other failed or was not tried, deletes the others again: they were answered
    /// with nothing yet, and would refer to nobody. Returns the number of new failures.
    async fn undo(&mut self, circle: &BTreeSet<usize>) -> Result<usize, ScimError> {
        let Some(failed) = circle.iter().copied().find(|index| !self.succeeded(*index)) else { return Ok(0) };
        let mut undone = 0;
        for index in circle {
            if !self.succeeded(*index) {
                continue;
            }
            let Some(operation) = self.request.operations.get(*index) else { continue };
            let Ok((_, of)) = operation.action else { continue };
            let outcome = match of.home() {
                Home::Users => UserRecord::delete(self.call, of, operation.id, None).await,
                Home::Groups => GroupRecord::delete(self.call, of, operation.id, None).await,
                Home::Resources => ScimResource::delete(self.call, of, operation.id, None).await,
            };
            // Without an answer the client sends the request again, and is told what is there.
            let _gone: DeleteOutcome = outcome.map_err(|error| store_error(&error))?;
            self.put(*index, Err(self.missing(failed)));
            undone += 1;
        }
        Ok(undone)
    }

    /// The answers, in the order of the request.
    fn answers(&self) -> Vec<Value> {
        let operations = self.request.operations.iter().zip(&self.done);
        operations
            .filter_map(|(operation, done)| {
                let mut answer = Map::new();
                answer.insert("method".into(), operation.method.clone().into());
                if let Some(bulk_id) = &operation.bulk_id {
                    answer.insert("bulkId".into(), bulk_id.clone().into());
                }
                let (id, status) = match done.as_ref()? {
                    Ok(done) => {
                        if let Some(version) = done.version {
                            answer.insert("version".into(), etag(version).into());
                        }
                        (Some(done.resource), done.status)
                    }
                    Err(refusal) => {
                        answer.insert("response".into(), refusal.body());
                        (self.place(operation), refusal.status())
                    }
                };
                if let (Some(id), Ok((_, of))) = (id, &operation.action) {
                    let location = format!("{}{}/{id}", self.call.base(), of.endpoint());
                    answer.insert("location".into(), location.into());
                }
                answer.insert("status".into(), status.to_string().into());
                Some(Value::Object(answer))
            })
            .collect()
    }

    /// The resource that a failed operation was about; none for one that creates.
    fn place(&self, operation: &crate::scim::BulkOperation) -> Option<Uuid> {
        let Ok((BulkAction::Replace(target) | BulkAction::Modify(target) | BulkAction::Delete(target), _)) =
            &operation.action
        else {
            return None;
        };
        self.request.target(target).ok()
    }
}
