//! What a shim tells containerd of its own accord, over the socket that containerd has for it.
//!
//! A connection per event: containerd may have been started anew since the last one.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};
use ttrpc::proto::{MESSAGE_LENGTH_MAX, MESSAGE_TYPE_REQUEST, Request};

use crate::kata::wire::control::{Envelope, ForwardRequest};

/// The longest wait for containerd, which answers at once or is not there.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where events go.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) socket: PathBuf,
    pub(super) namespace: String,
}

impl Events {
    /// Tells of an event, and returns when containerd has it: `publish("/tasks/oom", "TaskOOM", &message)`.
    pub(super) fn publish(&self, topic: &str, kind: &str, event: &impl Message) -> anyhow::Result<()> {
        let value = event.write_to_bytes()?;
        let event = Any { type_url: format!("containerd.events.{kind}"), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(Timestamp::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(event),
            ..Envelope::default()
        };
        let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
        Ok(self.forward(request.write_to_bytes()?)?)
    }

    fn forward(&self, payload: Vec<u8>) -> io::Result<()> {
        let request = Request {
            service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
            method: "Forward".to_owned(),
            payload,
            timeout_nano: i64::try_from(PATIENCE.as_nanos()).unwrap_or(i64::MAX),
            ..Request::default()
        };
        let message = request.write_to_bytes()?;
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(
            &[&length.to_be_bytes()[..], &1_u32.to_be_bytes(), &[MESSAGE_TYPE_REQUEST, 0], &message].concat(),
        )?;
        // The answer is empty; what counts is that it is there.
        let mut header = [0; 10];
        stream.read_exact(&mut header)?;
        let [one, two, three, four, ..] = header;
        let length = usize::try_from(u32::from_be_bytes([one, two, three, four])).unwrap_or(usize::MAX);
        stream.read_exact(&mut vec![0; length.min(MESSAGE_LENGTH_MAX)])
    }
}
