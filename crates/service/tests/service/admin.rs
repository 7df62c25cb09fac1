use prometheus::IntCounter;
use roost_service::{Health, HttpLimits, admin};
use serde_json::json;

use crate::support::start;

#[tokio::test]
async fn readyz_follows_the_checks_and_the_drain_while_healthz_stays() {
    let health = Health::new(&["kafka", "redis"]);
    let server = start(HttpLimits::admin(), admin::routes(health.clone(), prometheus::Registry::new())).await;
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let unseen = json!({"ok": false, "error": "not reached yet"});
    let checks = json!({"kafka": unseen, "redis": unseen});
    assert_eq!(answer.json(), json!({"ready": false, "draining": false, "checks": checks}));

    health.set("redis", Ok(()));
    health.set("kafka", Err("no broker answers".into()));
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let checks = json!({"kafka": {"ok": false, "error": "no broker answers"}, "redis": {"ok": true}});
    assert_eq!(answer.json()["checks"], checks);

    health.set("kafka", Ok(()));
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["ready"]), (200, &json!(true)));

    health.drain();
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["draining"]), (503, &json!(true)));
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn metrics_are_those_of_one_registry() {
    let registry = prometheus::Registry::new();
    let counter = IntCounter::new("roost_test_total", "A test").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    counter.inc_by(3);
    let server = start(HttpLimits::admin(), admin::routes(Health::new(&[]), registry)).await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    // The one that is the process's, and those of the registry.
    let names = answer.body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    assert_eq!(names.collect::<Vec<_>>(), ["roost_panics_total counter", "roost_test_total counter"]);
    assert!(
        answer.body.ends_with(
            "# HELP roost_test_total A test\n# TYPE roost_test_total counter\nroost_test_total 3\n"
        )
    );
    assert_eq!(server.get("/elsewhere").await.json()["error"]["code"], "not_found");
    let posted = server.ask("POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(posted.status, 405);
}
