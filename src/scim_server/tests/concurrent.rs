//! Many clients that write one group at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Server;
use crate::scim_server::Limits;

const CLIENTS: usize = 64;
/// Requests of each client.
const ROUNDS: usize = 12;

/// The operations by which clients add a user to a group, or remove it, in the shapes of several IdPs.
fn operation(add: bool, shape: usize, user: &str) -> Value {
    match (add, shape % 3) {
        (true, 0) => json!([{"op": "add", "path": "members", "value": [{"value": user}]}]),
        (true, 1) => json!([{"op": "Add", "value": {"members": [{"value": user}]}}]),
        (true, _) => json!([{"op": "add", "path": "members", "value": {"value": user}}]),
        (false, 0) => json!([{"op": "remove", "path": format!("members[value eq \"{user}\"]")}]),
        (false, 1) => json!([{"op": "Remove", "path": "members", "value": [{"$ref": null, "value": user}]}]),
        (false, _) => json!([{"op": "remove", "path": "members", "value": {"value": user}}]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_that_write_one_group_lose_no_member_and_no_removal() {
    let server = Arc::new(Server::with(Limits { requests_per_second: None, ..Limits::default() }).await);
    let mut users = Vec::new();
    for index in 0..CLIENTS {
        users.push(server.user(&format!("user{index}@example.com")).await);
    }
    let bystander = server.user("bystander@example.com").await;
    let group = server.group("team", &[&bystander]).await;
    let clients: Vec<_> = users
        .iter()
        .enumerate()
        .map(|(index, user)| {
            let (server, path, user) = (Arc::clone(&server), format!("/Groups/{group}"), user.clone());
            tokio::spawn(async move {
                // Every third client ends with a removal.
                let rounds = ROUNDS - usize::from(index % 3 != 0);
                for round in 0..rounds {
                    let operations = operation(round % 2 == 0, index + round, &user);
                    let reply = server.patch(&path, operations).await;
                    assert!(reply.status == 200 || reply.status == 204, "{}: {}", reply.status, reply.text);
                }
                rounds % 2 == 1
            })
        })
        .collect();
    let mut wanted = BTreeSet::from([bystander]);
    for (user, client) in users.into_iter().zip(clients) {
        if client.await.unwrap() {
            wanted.insert(user);
        }
    }
    assert_eq!(wanted.len(), 43, "the bystander, and two clients of three");
    assert_eq!(server.members(&group).await, wanted);
}
