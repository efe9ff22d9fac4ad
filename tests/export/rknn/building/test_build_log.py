"""Parsing logs of builds, with lines that the toolkit wrote."""

from __future__ import annotations

from edgepress.export.rknn.building.build_log import BuiltLayer, parse_build_log

BEGIN = "D RKNN: [14:25:45.359] "
HEAD = (
    f"{BEGIN}          Network Layer Information Table\n{BEGIN}ID   OpType   DataType Target InputShape  OutputShape\n"
)
ROWS = """\
D RKNN: [14:26:12.358] 0    InputOperator      FLOAT16  CPU    \\    (1,96,256)   0/0/0    0     InputOperator:hidden
D RKNN: [14:26:12.358] 5    Conv               FLOAT16  NPU    (1,1,1,96),(1,1,1,1)   (1,1,1,96)  74/192/192   0
D RKNN: [14:26:12.358] 8    exNorm             FLOAT16  NPU    (1,256,1,96)  (1,256,1,96)  0/0/0  49  exNorm:norm_2rmsn
D RKNN: [14:26:12.358] 9    Div                FLOAT    CPU    (1,384,1,96)  (1,384,1,96)  0/0/0  73  Div:node_div_3
D RKNN: [14:26:12.358] 65   OutputOperator     FLOAT16  CPU    (1,96,384)    \\    0/0/0    72    OutputOperator:caption
"""
TENSORS = f"{BEGIN}62  Add   node_ReduceMean  FLOAT16   NC1HWC2  (1,384,1,96) (1,192,1,96,8) | 0x00000000 0x00012000\n"
MEMORY = f"{BEGIN}Total Internal Memory Size: 1191.38KB\n{BEGIN}Total Weight Memory Size: 3.5MB\n"


def test_layers_are_listed_with_their_target_but_without_inputs_and_outputs() -> None:
    build_log = parse_build_log(HEAD + ROWS + TENSORS)
    assert build_log.layers == (
        BuiltLayer("Conv", "FLOAT16", "NPU", ""),
        BuiltLayer("exNorm", "FLOAT16", "NPU", "norm_2rmsn"),
        BuiltLayer("Div", "FLOAT", "CPU", "node_div_3"),
    )
    assert build_log.layers_not_on_npu == (BuiltLayer("Div", "FLOAT", "CPU", "node_div_3"),)


def test_the_last_of_several_tables_counts() -> None:
    second = "D RKNN: [14:26:13.000] 3    Conv   FLOAT16  NPU    (1,1)   (1,1)  0/0/0   0   Conv:last\n"
    assert [layer.name for layer in parse_build_log(HEAD + ROWS + HEAD + second).layers] == ["last"]


def test_memory_is_in_bytes() -> None:
    build_log = parse_build_log(HEAD + ROWS + MEMORY)
    assert (build_log.internal_bytes, build_log.weight_bytes) == (int(1191.38 * 2**10), int(3.5 * 2**20))


def test_errors_are_listed_once_and_without_timestamps() -> None:
    error = "E RKNN: [14:26:12.358] Unkown op target: 0\n"
    wide = "E RKNN: [14:26:12.400] REGTASK bit width exceeds limit 0x1fff\n"
    search = "E build: The 'convert_gather_to_slice_reshape' rule may fall into an infinite loop!\n"
    build_log = parse_build_log("D RKNN: [1] all is well\n" + error + error + wide + search + HEAD + ROWS)
    assert [line.split()[-1] for line in build_log.errors] == ["0", "0x1fff", "loop!"]
    assert "14:26" not in "".join(build_log.errors)


def test_a_log_without_a_table_has_no_layers() -> None:
    assert parse_build_log("I rknn building ...\n").layers == ()
