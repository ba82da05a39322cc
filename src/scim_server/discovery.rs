//! Discovery (RFC 7644 §4).

use axum::Router;
use axum::routing::{MethodRouter, any};
use serde_json::Value;

use super::answer::Answer;
use super::call::{Call, Id};
use super::request::Query;
use super::search::MAX_RESULTS;
use crate::scim::{ResourceTypes, ScimError, json, schema};

pub(super) fn routes() -> Router {
    let config = async |call: Call, query: Query| {
        unfiltered(&query)?;
        Ok::<_, ScimError>(Answer::ok(schema::service_provider_config(&call.base(), json::MAX_BODY, MAX_RESULTS)))
    };
    let no_config = async |query: Query| -> Result<Answer, ScimError> {
        unfiltered(&query)?;
        Err(unknown())
    };
    Router::new()
        .route("/ServiceProviderConfig", read_only().get(config))
        .route("/ServiceProviderConfig/{id}", read_only().get(no_config))
        .merge(documents("/ResourceTypes", |types, base| types.all().iter().map(|of| of.definition(base)).collect()))
        .merge(documents("/Schemas", ResourceTypes::schemas))
}

/// Routes of a list of documents and of each document by its id, in any case.
fn documents(path: &str, documents: fn(&ResourceTypes, &str) -> Vec<Value>) -> Router {
    let all = move |call: Call, query: Query| async move {
        unfiltered(&query)?;
        let all = documents(&call.scim().types, &call.base());
        Ok::<_, ScimError>(Answer::ok(schema::list_response(all.len() as u64, 1, &all)))
    };
    let one = move |call: Call, Id(id): Id, query: Query| async move {
        unfiltered(&query)?;
        let is_meant = |one: &Value| one["id"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(&id));
        documents(&call.scim().types, &call.base()).into_iter().find(is_meant).map(Answer::ok).ok_or_else(unknown)
    };
    Router::new().route(path, read_only().get(all)).route(&format!("{path}/{{id}}"), read_only().get(one))
}

fn read_only() -> MethodRouter {
    any(|| async { ScimError::MethodNotAllowed("GET, HEAD") })
}

fn unfiltered(query: &Query) -> Result<(), ScimError> {
    match query.filter {
        Some(_) => Err(ScimError::Forbidden("this endpoint cannot be filtered".into())),
        None => Ok(()),
    }
}

fn unknown() -> ScimError {
    ScimError::NotFound("there is no such schema or resource type".into())
}
