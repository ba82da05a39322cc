//! What the loop sends to the controller.

use super::*;

fn event_word(event: &ResourceEvent) -> String {
    match event {
        ResourceEvent::Applied { observed, .. } => format!("apply {} {}", observed.object.name, observed.origin),
        ResourceEvent::DeletionRequested { observed, .. } => {
            format!("delete {} {}", observed.object.name, observed.origin)
        }
        ResourceEvent::Absent { object, .. } => format!("absent {}", object.name),
        ResourceEvent::Recovered(object) => format!("recovered {}", object.name),
        ResourceEvent::ProblemCleared(object) => format!("cleared {}", object.name),
        ResourceEvent::Suspicious(Some(why)) => format!("suspicious {why:?}"),
        ResourceEvent::Suspicious(None) => "trusted".to_owned(),
        ResourceEvent::Loaded => "loaded".to_owned(),
        other => panic!("{other:?}"),
    }
}

fn options(folder: &Path) -> PollOptions {
    let (every, settle) = (Duration::from_millis(20), Duration::from_millis(5));
    PollOptions { every, settle, ..PollOptions::new(folder.to_owned(), HOME.to_owned()) }
}

#[test]
fn secrets_have_the_namespace_of_the_operator_or_are_not_read() {
    let secret = |namespace: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: okta{namespace}}}\nstringData: {{token: t}}\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut looked = FolderScan::new(path.to_owned(), HOME);
    let mut known = Known::default();
    write(path, "a.yaml", &secret(""));
    write(path, "foreign.yaml", &secret(", namespace: shop"));
    assert_eq!(settle(&mut known, &look(&mut looked)), ["apply okta a.yaml", "loaded"]);
    let own = ObjectRef::new(Kind::Secret, Some(HOME), "okta");
    assert_eq!(known.objects().keys().collect::<Vec<_>>(), [&own]);
    // The same Secret with an explicit namespace, and the removal of one of the same name elsewhere: no changes.
    write(path, "a.yaml", &secret(", namespace: rolecall-system"));
    fs::remove_file(path.join("foreign.yaml")).unwrap();
    assert_eq!(settle(&mut known, &look(&mut looked)), [""; 0]);
    // It moves to another namespace: removed here.
    write(path, "a.yaml", &secret(", namespace: shop"));
    write(path, "m.yaml", &mapping("m", "g"));
    assert_eq!(settle(&mut known, &look(&mut looked)), ["apply m m.yaml", "delete okta a.yaml"]);
}

#[tokio::test]
async fn the_loop_ends_when_it_is_cancelled_although_nobody_receives_its_events() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "p.yaml", &provider());
    let (sender, changes) = mpsc::channel(1);
    sender
        .try_send(crate::source::folder::poll::Scanned {
            begun: tokio::time::Instant::now(),
            quiet: true,
            events: Vec::new(),
        })
        .unwrap();
    let (_commander, commands) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(poll(options(folder.path()), Known::default(), sender, commands, cancel.clone()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!task.is_finished(), "it waits for its place in the channel");
    cancel.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").unwrap();
    drop(changes);
}

#[tokio::test]
async fn the_loop_sends_what_happens_in_the_folder_until_it_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "p.yaml", &provider());
    write(path, "m.yaml", &mapping("m", "g"));
    let options = options(path);
    let (sender, mut changes) = mpsc::channel(4);
    let (commander, commands) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(poll(options, Known::default(), sender, commands, cancel.clone()));
    let mut wait_for = async |what: &str| {
        let mut said = Vec::new();
        while !said.iter().any(|word: &String| word == what) {
            let batch = tokio::time::timeout(Duration::from_secs(20), changes.recv()).await;
            let batch = batch.unwrap_or_else(|_| panic!("no `{what}`, only {said:?}")).unwrap();
            said.extend(batch.events.iter().map(event_word));
        }
        said
    };
    assert_eq!(wait_for("loaded").await, ["apply okta p.yaml", "apply m m.yaml", "loaded"]);
    write(path, "n.yaml", &mapping("n", "g"));
    assert_eq!(wait_for("apply n n.yaml").await.len(), 1);
    fs::remove_file(path.join("n.yaml")).unwrap();
    assert_eq!(wait_for("delete n n.yaml").await.len(), 1);
    fs::remove_file(path.join("m.yaml")).unwrap();
    fs::remove_file(path.join("p.yaml")).unwrap();
    wait_for("absent m").await;
    let provider = ObjectRef::new(Kind::IdentityProvider, None, "okta");
    commander.send(FolderCommand::Forget([provider, reference("m")].into())).await.unwrap();
    wait_for("trusted").await;
    cancel.cancel();
    task.await.unwrap();
}
