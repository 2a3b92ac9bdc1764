//! A server that its timeguard fences is offered last, as long as the timeguard says so.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use lockstep_chassis::Drain;
use lockstep_clocks::{ClockBoard, ClockReports, Fence, Report, Reports, Verdict};
use lockstep_model::{Reason, Revision, ServerId, clock::SystemEntropy, record::Placement};
use lockstep_replicas::{
    Address, Live as _,
    domain::{
        Moment,
        cause::Cause,
        records::{Change, Records},
        samples::{announcement, file_of, position, report_at, server_id, snapshot},
    },
};
use resolver::{
    domain::resolve::{Question, Subject},
    engine::{Board, resolver::Resolver},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Ear = mpsc::Receiver<Result<Report, Cause>>;

/// The timeguard of s1; nobody else has one. It is heard once.
#[derive(Clone)]
struct Guard(Arc<Mutex<Option<Ear>>>);

impl ClockReports for Guard {
    async fn watch(&self, _: &Address) -> Result<Reports, Cause> {
        let ear = self.0.lock().expect("not poisoned").take();
        let ear = ear.ok_or_else(|| Cause::new(Reason::PeerUnreachable, "nobody listens"))?;
        Ok(ReceiverStream::new(ear).boxed())
    }
}

fn report(fence: Fence) -> Report {
    Report { verdict: Verdict::Skewed, offset: None, uncertainty: None, fence }
}

/// Two servers that hold a file; the first has a timeguard.
fn board() -> Board {
    let mut records = Records::at(position(3));
    for id in ["s1", "s2"] {
        let mut record = announcement("distributed", "12.04.100");
        record.filesync = format!("https://{id}.lan:7001");
        if id == "s1" {
            record.timeguard = format!("https://{id}.lan:7002");
        }
        records.apply(Revision(1), Change::Server(server_id(id), Some(Box::new(record))));
    }
    records.apply(Revision(2), file_of("a", 100, "s1", Placement::All));
    let board = Board::new();
    board.update(|view| {
        view.adopt(records, Moment::ZERO);
        for id in ["s1", "s2"] {
            view.receive(&server_id(id), snapshot(report_at(3)));
        }
    });
    board.enrol(true);
    board
}

/// R62, R47: a device is not sent to a fenced server while another holds the file, though it is the one that the device talks
/// to; it is again when the fence is lifted, and when the timeguard is not heard any more.
#[tokio::test(start_paused = true)]
async fn a_fenced_server_is_offered_last_while_its_timeguard_says_so() {
    let (voice, ear) = mpsc::channel(4);
    let (board, clocks, drain) = (board(), ClockBoard::new(), Drain::new());
    let guard = Guard(Arc::new(Mutex::new(Some(ear))));
    lockstep_clocks::start(board.members(), guard, &clocks, &drain, SystemEntropy);
    let resolver = Resolver::new(board, clocks, None);
    let question = Question {
        subject: Subject::File("a".parse().expect("a path")),
        current: server_id("s1"),
        device: "d1".parse().expect("a device"),
        site: String::new(),
        is_explained: false,
    };
    let sent_to = async |server: &str| {
        let wanted: ServerId = server_id(server);
        let sent = async {
            while resolver.resolve(&question).expect("answered").connection.server.as_ref() != Some(&wanted) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), sent).await.expect("sent there in time");
    };
    sent_to("s1").await;
    for reason in [Reason::ClockFenced, Reason::RestartRequired] {
        let fence = Fence::Fenced(Cause::new(reason, "its clock was set"));
        voice.send(Ok(report(fence))).await.expect("heard");
        sent_to("s2").await;
        voice.send(Ok(report(Fence::Overruled))).await.expect("heard");
        sent_to("s1").await;
    }
    voice.send(Ok(report(Fence::Fenced(Cause::new(Reason::ClockFenced, "again"))))).await.expect("heard");
    sent_to("s2").await;
    drop(voice);
    sent_to("s1").await;
}
