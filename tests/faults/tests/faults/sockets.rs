//! What is sent over sockets with Nagle's algorithm on, as those of Spin and of the project's host have it: what leaves
//! in two pieces over a kept connection waits about 40 ms in between, for an acknowledgement that the other side puts
//! off.

use faults::{Application, Direction};

const CALLS: u64 = 40;

#[tokio::test]
async fn head_and_body_of_a_request_to_litellm_leave_together() {
    let app = Application::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    // Opens the connection that is kept.
    team.call(&job, "hello").await.ok();
    let before = app.to_litellm.pieces(Direction::ToServer);
    for _ in 0..CALLS {
        team.call(&job, "hello").await.ok();
    }
    let pieces = app.to_litellm.pieces(Direction::ToServer) - before;
    // The host decides when it sends, so a few may come apart, where the machine has much else to do.
    assert!((CALLS..CALLS + CALLS / 2).contains(&pieces), "{CALLS} requests in {pieces} pieces");
    app.recovers().await;
}
