use super::*;
use crate::model::{AuditEntry, AuditOutcome, ConditionHash, DocumentKey, GrantKey, MemberKey, Role};

fn document() -> DocumentKey {
    "run:projects/p/locations/l/services/s".parse().unwrap()
}

fn entry(at: Timestamp, action: &str) -> AuditEntry {
    AuditEntry {
        claims: vec![],
        at,
        actor: "mapping:checkout/invokers@3".to_owned(),
        request_id: None,
        cause_seqs: vec![1, 2],
        document: Some(document()),
        resource_uid: Some("uid-1".to_owned()),
        action: action.to_owned(),
        grant: Some(GrantKey {
            role: Role::new("roles/run.invoker").unwrap(),
            condition: ConditionHash::default(),
            member: MemberKey::of("user:alice@corp.example"),
        }),
        subject: Some("0b3f".to_owned()),
        plan_hash: Some("plan".to_owned()),
        revision_before: Some("e1".to_owned()),
        revision_after: None,
        outcome: AuditOutcome::Intended,
        reason: None,
    }
}

#[tokio::test]
async fn entries_read_back_as_written_in_order() {
    let home = Home::new().await;
    let entries: Vec<_> = ["grant", "revoke", "lost"].map(|action| entry(home.now(), action)).to_vec();
    home.store.record(&document(), vec![], entries[..2].to_vec()).await.unwrap();
    home.store.record(&document(), vec![], entries[2..].to_vec()).await.unwrap();
    let rows = home.store.audit_after(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rows.into_iter().map(|row| row.entry).collect::<Vec<_>>(), entries);
    assert_eq!(home.store.audit_after(2, 10).await.unwrap().len(), 1);
    assert_eq!(home.store.verify_audit_chain().await.unwrap(), 3);
}

#[tokio::test]
async fn a_directory_change_says_who_did_what_to_whom_and_which_event_it_was() {
    let home = Home::new().await;
    let user = add_user(&home.store, &okta(), "a@x.example").await.facts.id;
    let group = add_group(&home.store, &okta(), "g", &[user.0]).await.group.facts.id;
    home.store.delete_user(&okta(), &origin(), user, None).await.unwrap();
    let rows = home.store.audit_after(0, 10).await.unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.entry.action.as_str(), row.entry.subject.clone().unwrap(), row.entry.cause_seqs.clone()))
        .collect();
    assert_eq!(
        told,
        [
            ("user.create", user.to_string(), vec![1]),
            ("group.create", group.to_string(), vec![2]),
            ("group.member.add", group.to_string(), vec![3]),
            ("user.delete", user.to_string(), vec![4]),
        ]
    );
    let detail: serde_json::Value = serde_json::from_str(rows[2].detail.as_deref().unwrap()).unwrap();
    assert_eq!(detail, json!({"count": 1, "before": 0, "after": 1, "member": user.to_string()}));
    for row in &rows {
        assert_eq!((row.entry.actor.as_str(), row.entry.request_id.as_deref()), ("idp:okta/a", Some("req-1")));
    }
    assert_eq!(rows[3].name.as_deref(), Some("a@x.example"));
}

#[tokio::test]
async fn any_change_of_a_row_is_found() {
    for tampering in [
        "UPDATE audit SET actor = 'idp:okta/b' WHERE seq = 2",
        "UPDATE audit SET at = at + 1 WHERE seq = 2",
        "UPDATE audit SET subject = NULL WHERE seq = 2",
        "UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 3) WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 2",
    ] {
        let home = Home::new().await;
        for index in 0..4 {
            add_user(&home.store, &okta(), &format!("u{index}@x.example")).await;
        }
        assert_eq!(home.store.verify_audit_chain().await.unwrap(), 4);
        home.store.tamper(tampering).await;
        assert_eq!(home.store.verify_audit_chain().await, Err(StoreError::AuditBroken { seq: 2 }), "{tampering}");
    }
}

#[tokio::test]
async fn a_person_can_be_erased_and_the_chain_still_holds() {
    let home = Home::new().await;
    home.store.record(&document(), vec![], vec![entry(home.now(), "grant")]).await.unwrap();
    home.store.tamper("UPDATE people SET name = NULL").await;
    assert_eq!(home.store.verify_audit_chain().await.unwrap(), 1);
    let row = home.store.audit_after(0, 1).await.unwrap().remove(0);
    assert_eq!((row.name, row.entry.grant.unwrap().member.as_str()), (None, "erased"));
    assert_eq!(row.entry.subject.as_deref(), Some("0b3f"));
    let everything = home.store.dump_audit().await;
    assert!(!everything.contains("alice"), "{everything}");
}
