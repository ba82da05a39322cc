//! Counts of calls by caller, from the API server's audit log.

use std::path::Path;

use serde_json::Value;

/// One finished call, or one watch that started.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// `system:serviceaccount:NAMESPACE:NAME` for a service account.
    pub(crate) user: String,
    pub(crate) user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub(crate) verb: String,
    pub(crate) group: String,
    /// `rolemappings`, or with its subresource `rolemappings/status`.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uri: String,
    /// The HTTP status.
    pub(crate) code: u16,
}

/// The calls in the log from this byte on.
pub(crate) fn read(log: &Path, from: usize) -> Vec<Call> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let new = bytes.get(from..whole).unwrap_or_default();
    new.split(|&byte| byte == b'\n').filter_map(|line| call(&serde_json::from_slice(line).ok()?)).collect()
}

fn call(event: &Value) -> Option<Call> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let watch = text("/verb") == "watch";
    // A watch counts when it starts, because its end may be far away.
    if text("/stage") != if watch { "ResponseStarted" } else { "ResponseComplete" } {
        return None;
    }
    let subresource = text("/objectRef/subresource");
    let resource = text("/objectRef/resource");
    Some(Call {
        user: text("/user/username"),
        user_agent: text("/userAgent"),
        verb: text("/verb"),
        group: text("/objectRef/apiGroup"),
        resource: if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") },
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        uri: text("/requestURI"),
        code: event.pointer("/responseStatus/code").and_then(Value::as_u64).and_then(|code| code.try_into().ok())?,
    })
}
