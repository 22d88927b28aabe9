"""Accepts one connection and echoes every CONNECT stream with python3-h2; the
authority 10.0.0.7:1 is refused with 503, 10.0.0.7:2 is reset. Prints its port."""
import socket

import h2.config
import h2.connection
import h2.events

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
sock.settimeout(30)
conn = h2.connection.H2Connection(
    h2.config.H2Configuration(
        client_side=False,
        header_encoding="utf-8",
        # h2 4.1 knows extended CONNECT only and asks for :path and :scheme in every one.
        validate_inbound_headers=False,
        validate_outbound_headers=False,
    )
)
conn.initiate_connection()
sock.sendall(conn.data_to_send())
pending = {}  # stream: [octets to send, ended]


def flush():
    for stream, state in list(pending.items()):
        while state[0]:
            n = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size, len(state[0]))
            if n <= 0:
                break
            conn.send_data(stream, bytes(state[0][:n]))
            del state[0][:n]
        if state[1] and not state[0]:
            conn.end_stream(stream)
            del pending[stream]
    sock.sendall(conn.data_to_send())


while True:
    data = sock.recv(65536)
    if not data:
        break
    for event in conn.receive_data(data):
        if isinstance(event, h2.events.RequestReceived):
            headers = dict(event.headers)
            assert headers[":method"] == "CONNECT" and ":path" not in headers, headers
            if headers[":authority"].endswith(":1"):
                conn.send_headers(event.stream_id, [(":status", "503")], end_stream=True)
            elif headers[":authority"].endswith(":2"):
                conn.reset_stream(event.stream_id, error_code=7)
            else:
                conn.send_headers(event.stream_id, [(":status", "200"), ("baggage", headers.get("baggage", ""))])
                pending[event.stream_id] = [bytearray(), False]
        elif isinstance(event, h2.events.DataReceived):
            if event.stream_id in pending:
                pending[event.stream_id][0] += event.data
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in pending:
                pending[event.stream_id][1] = True
        elif isinstance(event, h2.events.StreamReset):
            pending.pop(event.stream_id, None)
    flush()
