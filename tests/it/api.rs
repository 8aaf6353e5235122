//! The REST API: every operation's answers, over a real socket.

use crate::support::Server;

#[tokio::test]
async fn a_created_user_can_be_read_at_its_location() {
    let server = Server::start().await;

    let created = server.send("POST", "/api/users?name=John&email=john%40example.com").await;
    let read = server.get(created.header("location")).await;

    assert_eq!(created.status, 201);
    assert_eq!(read.json(), created.json());
}
