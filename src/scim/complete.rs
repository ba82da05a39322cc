//! Resources as clients see them: the stored part with what the server adds.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::respell::respell;
use super::schema::ResourceType;

/// The weak entity tag of a version.
#[must_use]
pub(crate) fn etag(version: i64) -> String {
    format!("W/\"{version}\"")
}

/// The attributes of a resource that the server sets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerAttributes<'a> {
    /// The `id`.
    pub(crate) id: &'a str,
    /// The version behind `meta.version`.
    pub(crate) version: i64,
    /// `meta.created`
    pub(crate) created: Timestamp,
    /// `meta.lastModified`
    pub(crate) modified: Timestamp,
}

/// A stored resource with `id` and `meta`. `base` is the tenant's SCIM base URL.
#[must_use]
pub(crate) fn complete(
    stored: &Value,
    of: ResourceType,
    base: &str,
    server: ServerAttributes<'_>,
) -> Map<String, Value> {
    let mut resource = Map::new();
    let stored = stored.as_object();
    if let Some(schemas) = stored.and_then(|stored| stored.get("schemas")) {
        resource.insert("schemas".to_owned(), schemas.clone());
    }
    resource.insert("id".to_owned(), json!(server.id));
    for (name, value) in stored.into_iter().flatten().filter(|(name, _)| *name != "schemas") {
        resource.insert(name.clone(), value.clone());
    }
    respell(of, &mut resource);
    let meta = json!({
        "resourceType": of.name(),
        "created": server.created,
        "lastModified": server.modified,
        "location": format!("{base}{}/{}", of.endpoint(), server.id),
        "version": etag(server.version),
    });
    resource.insert("meta".to_owned(), meta);
    resource
}
