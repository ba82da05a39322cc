//! Bodies of answers: small ones whole, large ones streamed, so that memory does not grow with the size of a page or of a group.

use std::collections::HashMap;
use std::io;

use axum::body::{Body, Bytes};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::call::Call;
use super::store_error;
use crate::scim::schema::{ENTERPRISE_URN, LIST_URN};
use crate::scim::{Home, Projection, ResourceType, ScimError, ServerAttributes, complete, issued_id};
use crate::store::{GroupRecord, MemberKind, PlannedRow, ScimResource, StoreError, UserRecord};

/// Most bytes of resources in one list answer, members included; it then has fewer resources than asked for
/// (RFC 7644 §3.4.2.4 allows that), but at least one, and never a group without some of its members.
pub(super) const MAX_PAGE: u64 = 8 * 1024 * 1024;

/// Approximate size of a member of a group, or of a group of a user, in an answer, in bytes.
pub(super) const MEMBER: u64 = 160;

/// Largest answer that is not streamed, in bytes.
const SMALL: u64 = 64 * 1024;

/// Size of the chunks of a streamed answer, in bytes.
const PIECE: usize = 32 * 1024;

/// Bytes of stored resources that are read at a time; one resource more at most.
const READ: u64 = 128 * 1024;

/// Members that are read at a time.
const MEMBERS: u32 = 1000;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Content {
    /// JSON that is whole.
    Value(Value),
    /// JSON as text that is whole.
    Text(Vec<u8>),
    /// JSON that is streamed.
    Stream(Body),
}

/// Why rendering stopped early.
enum Stopped {
    /// The client has gone.
    Gone,
    Store(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Destination of the bytes of an answer.
enum Out {
    Memory(Vec<u8>),
    Channel { pending: Vec<u8>, to: mpsc::Sender<Result<Bytes, io::Error>> },
}

impl Out {
    async fn put(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        match self {
            Self::Memory(all) => all.extend_from_slice(bytes),
            Self::Channel { pending, .. } => {
                pending.extend_from_slice(bytes);
                if pending.len() >= PIECE {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stopped> {
        if let Self::Channel { pending, to } = self
            && !pending.is_empty()
        {
            let piece = Bytes::from(std::mem::take(pending));
            to.send(Ok(piece)).await.map_err(|_| Stopped::Gone)?;
        }
        Ok(())
    }
}

/// Renders resources of the provider of one request.
pub(super) struct Render {
    call: Call,
    /// The provider's SCIM base URL.
    base: String,
}

/// Resources of one type in a list answer.
pub(super) struct Part {
    pub(super) of: ResourceType,
    pub(super) rows: Vec<PlannedRow>,
    pub(super) projection: Projection,
}

/// Where a list answer begins, as it is shown.
pub(super) enum Start {
    /// `startIndex`
    Index(u64),
    /// A cursor; `nextCursor`, unless the list ends here.
    Cursor(Option<String>),
}

/// Content of an answer before it is rendered.
pub(super) enum Document {
    Group(ResourceType, Box<GroupRecord>, Projection),
    List { total: u64, start: Start, parts: Vec<Part> },
}

fn with_members(of: ResourceType, projection: &Projection) -> bool {
    match of.home() {
        Home::Users => projection.requests_groups(),
        Home::Groups => projection.includes("members"),
        Home::Resources => false,
    }
}

fn weight(row: &PlannedRow, members: bool) -> u64 {
    row.bytes.saturating_add(if members { row.members.saturating_mul(MEMBER) } else { 0 })
}

impl Part {
    /// Truncates to the rows that `left` bytes allow, at least one if `first`, and subtracts their size from `left`.
    pub(super) fn cut(&mut self, left: &mut u64, mut first: bool) {
        let members = with_members(self.of, &self.projection);
        let fits = self.rows.iter().take_while(|row| {
            let weight = weight(row, members);
            let fits = first || weight <= *left;
            first = false;
            *left = if fits { left.saturating_sub(weight) } else { 0 };
            fits
        });
        let count = fits.count();
        self.rows.truncate(count);
    }

    fn weight(&self) -> u64 {
        let members = with_members(self.of, &self.projection);
        self.rows.iter().map(|row| weight(row, members)).sum()
    }
}

impl Document {
    fn weight(&self) -> u64 {
        match self {
            Self::Group(of, group, projection) if with_members(*of, projection) => {
                group.member_count.saturating_mul(MEMBER)
            }
            Self::Group(..) => 0,
            Self::List { parts, .. } => parts.iter().map(Part::weight).sum(),
        }
    }
}

impl Render {
    pub(super) fn new(call: &Call) -> Self {
        Self { call: call.clone(), base: call.base() }
    }

    fn location(&self, of: ResourceType, id: &str) -> String {
        format!("{}{}/{id}", self.base, of.endpoint())
    }

    /// A user, with its groups and the name of its manager as they are now, if they are asked for.
    pub(super) async fn user(
        &self,
        of: ResourceType,
        user: &UserRecord,
        projection: &Projection,
    ) -> Result<Value, StoreError> {
        let id = user.facts.id.to_string();
        let server =
            ServerAttributes { id: &id, version: user.version, created: user.created_at, modified: user.updated_at };
        let mut resource = complete(&user.resource, of, &self.base, server);
        // Earlier versions stored some users without it; what is in force is always shown.
        resource.entry("active").or_insert(Value::Bool(user.facts.active));
        let (store, provider) = (self.call.store(), self.call.provider());
        if projection.requests_groups() {
            let groups = store.groups_of(provider, user.facts.id).await?;
            if !groups.is_empty() {
                let groups = groups.iter().map(|group| group.rendered(&self.base)).collect();
                resource.insert("groups".to_owned(), Value::Array(groups));
            }
        }
        if projection.requests_manager_name()
            && let Some(Value::Object(manager)) =
                resource.get_mut(ENTERPRISE_URN).and_then(|extension| extension.get_mut("manager"))
            && let Some(id) = manager.get("value").and_then(Value::as_str).and_then(issued_id)
            && let Some(name) = store.display_names(provider, vec![id]).await?.remove(&id)
        {
            manager.insert("displayName".to_owned(), Value::String(name));
        }
        Ok(projection.apply(Value::Object(resource)))
    }

    /// A resource of a type from a file.
    pub(super) fn resource(&self, of: ResourceType, resource: &ScimResource, projection: &Projection) -> Value {
        let id = resource.id.to_string();
        let (created, modified) = (resource.created_at, resource.updated_at);
        let server = ServerAttributes { id: &id, version: resource.version, created, modified };
        projection.apply(Value::Object(complete(&resource.resource, of, &self.base, server)))
    }

    /// The body of an answer. A large one is rendered while it is sent, and the request counts as admitted until then.
    pub(super) async fn content(self, document: Document) -> Result<Content, ScimError> {
        if document.weight() <= SMALL {
            let mut out = Out::Memory(Vec::new());
            return match (self.write(&document, &mut out).await, out) {
                (Ok(()), Out::Memory(text)) => Ok(Content::Text(text)),
                (Err(Stopped::Store(error)), _) => Err(store_error(&error)),
                _ => Err(ScimError::Internal),
            };
        }
        let (to, from) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut out = Out::Channel { pending: Vec::new(), to: to.clone() };
            let written = match self.write(&document, &mut out).await {
                Ok(()) => out.flush().await,
                stopped => stopped,
            };
            if let Err(Stopped::Store(error)) = written {
                tracing::error!(reason = error.reason(), problem = %error, "a SCIM answer could not be finished");
                // The body then has no end, by which the client knows that the answer is not whole.
                let _gone = to.send(Err(io::Error::other("the store cannot be read"))).await;
            }
        });
        let pieces =
            futures::stream::unfold(from, |mut from| async move { from.recv().await.map(|piece| (piece, from)) });
        Ok(Content::Stream(Body::from_stream(pieces)))
    }

    async fn write(&self, document: &Document, out: &mut Out) -> Result<(), Stopped> {
        match document {
            Document::Group(of, group, projection) => self.group(*of, group, projection, out).await,
            Document::List { total, start, parts } => self.list(*total, start, parts, out).await,
        }
    }

    /// A list answer (RFC 7644 §3.4.2). `itemsPerPage` stands at its end, since a resource may be deleted before it is read.
    async fn list(&self, total: u64, start: &Start, parts: &[Part], out: &mut Out) -> Result<(), Stopped> {
        let head = match start {
            Start::Index(start) => json!({"schemas": [LIST_URN], "totalResults": total, "startIndex": start}),
            Start::Cursor(None) => json!({"schemas": [LIST_URN], "totalResults": total}),
            Start::Cursor(Some(next)) => json!({"schemas": [LIST_URN], "totalResults": total, "nextCursor": next}),
        };
        let head = head.to_string();
        out.put(head.trim_end_matches('}').as_bytes()).await?;
        out.put(b",\"Resources\":[").await?;
        let mut count = 0_u64;
        for part in parts {
            let mut rows = part.rows.as_slice();
            while !rows.is_empty() {
                let (now, later) = rows.split_at(readable(rows));
                rows = later;
                let positions: Vec<i64> = now.iter().map(|row| row.position).collect();
                match part.of.home() {
                    Home::Users => {
                        for user in self.call.store().users_at(self.call.provider(), &positions).await? {
                            separate(&mut count, out).await?;
                            let user = self.user(part.of, &user, &part.projection).await?;
                            out.put(user.to_string().as_bytes()).await?;
                        }
                    }
                    Home::Resources => {
                        let provider = self.call.provider();
                        for resource in self.call.store().resources_at(part.of, provider, &positions).await? {
                            separate(&mut count, out).await?;
                            let resource = self.resource(part.of, &resource, &part.projection);
                            out.put(resource.to_string().as_bytes()).await?;
                        }
                    }
                    Home::Groups => {
                        for group in self.call.store().groups_at(self.call.provider(), &positions).await? {
                            separate(&mut count, out).await?;
                            self.group(part.of, &group, &part.projection, out).await?;
                        }
                    }
                }
            }
        }
        out.put(format!("],\"itemsPerPage\":{count}}}").as_bytes()).await
    }

    /// A group, with its members as they are while it is rendered. Its version was read before, so that it is never newer than the
    /// members.
    async fn group(
        &self,
        of: ResourceType,
        group: &GroupRecord,
        projection: &Projection,
        out: &mut Out,
    ) -> Result<(), Stopped> {
        let id = group.facts.id.to_string();
        let server =
            ServerAttributes { id: &id, version: group.version, created: group.created_at, modified: group.updated_at };
        let resource = complete(&group.resource, of, &self.base, server);
        let text = projection.apply(Value::Object(resource)).to_string();
        if group.member_count == 0 || !projection.includes("members") {
            return out.put(text.as_bytes()).await;
        }
        // The object has an `id` at least, so that a comma may follow.
        out.put(text.strip_suffix('}').unwrap_or(&text).as_bytes()).await?;
        let mut after = None;
        let mut count = 0_u64;
        loop {
            let (store, provider) = (self.call.store(), self.call.provider());
            let members = store.members_after(provider, group.facts.id, after, MEMBERS).await?;
            let Some(last) = members.last() else { break };
            after = Some(last.id);
            let mut names = if projection.requests_member_names() {
                store.display_names(provider, members.iter().map(|member| member.id).collect()).await?
            } else {
                HashMap::new()
            };
            let members: Vec<Value> = members
                .iter()
                .map(|member| {
                    let of = match member.kind {
                        MemberKind::User => ResourceType::User,
                        MemberKind::Group => ResourceType::Group,
                    };
                    let id = member.id.to_string();
                    let mut shown = json!({"value": id, "$ref": self.location(of, &id), "type": of.name()});
                    if let Some(name) = names.remove(&member.id) {
                        shown["display"] = Value::String(name);
                    }
                    shown
                })
                .collect();
            let chosen =
                projection.apply(Value::Object(Map::from_iter([("members".to_owned(), Value::Array(members))])));
            for member in chosen.get("members").and_then(Value::as_array).into_iter().flatten() {
                if count == 0 {
                    out.put(b",\"members\":[").await?;
                }
                separate(&mut count, out).await?;
                out.put(member.to_string().as_bytes()).await?;
            }
        }
        let end: &[u8] = if count > 0 { b"]}" } else { b"}" };
        out.put(end).await
    }
}

/// Writes a comma before each item but the first.
async fn separate(count: &mut u64, out: &mut Out) -> Result<(), Stopped> {
    *count += 1;
    if *count > 1 { out.put(b",").await } else { Ok(()) }
}

/// Number of these rows to read at once, at least one.
fn readable(rows: &[PlannedRow]) -> usize {
    let mut bytes = 0_u64;
    let fits = rows.iter().take_while(|row| {
        bytes = bytes.saturating_add(row.bytes);
        bytes <= READ
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u64]) -> Vec<PlannedRow> {
        bytes.iter().map(|&bytes| PlannedRow { position: 1, bytes, members: 0 }).collect()
    }

    fn part(of: ResourceType, rows: Vec<PlannedRow>) -> Part {
        Part { of, rows, projection: Projection::default() }
    }

    #[test]
    fn a_page_ends_where_its_bytes_do_and_has_at_least_one_resource() {
        let mut users = part(ResourceType::User, rows(&[400, 400, 400, 1]));
        let mut left = 1000;
        users.cut(&mut left, true);
        assert_eq!((users.rows.len(), left), (2, 0), "and nothing behind the one that does not fit");
        let mut large = part(ResourceType::User, rows(&[4_000_000, 1]));
        large.cut(&mut 1000, true);
        assert_eq!(large.rows.len(), 1);
        let mut second = part(ResourceType::User, rows(&[4_000_000, 1]));
        second.cut(&mut 1000, false);
        assert_eq!(second.rows.len(), 0);
    }

    #[test]
    fn members_count_where_they_are_shown() {
        let rows = vec![PlannedRow { position: 1, bytes: 10, members: 1000 }; 3];
        let mut shown = part(ResourceType::Group, rows.clone());
        shown.cut(&mut (2 * 1000 * MEMBER), true);
        assert_eq!(shown.rows.len(), 1);
        let mut hidden = part(ResourceType::Group, rows);
        hidden.projection = Projection::new(ResourceType::Group, None, Some("members"));
        hidden.cut(&mut 1000, true);
        assert_eq!(hidden.rows.len(), 3);
    }

    #[test]
    fn what_is_read_at_once_is_bounded_by_bytes() {
        assert_eq!(readable(&rows(&[READ * 30, 1])), 1);
        assert_eq!(readable(&rows(&[1000; 500])), 131);
    }
}
