"""The same road without a browser: gradio_client, and an MCP client."""

import ast
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.data.conftest import image_files, write_zip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_zip(tmp_path_factory.mktemp("photos") / "photos.zip", image_files(12))


def test_gradio_client_goes_from_check_to_result(app, photos):
    client = Client(app.url, verbose=False)
    report = client.predict(handle_file(photos), api_name="/check")
    assert report["info"]["source"] == "photos.zip"
    plan = client.predict(handle_file(photos), budget="50%", epochs=1, api_name="/plan")
    assert plan["memory"]["peak_bytes"] <= plan["budget_bytes"]
    assert plan["data"]["source"] == "photos.zip"
    run = client.predict(plan, handle_file(photos), api_name="/train")["run"]
    while (status := client.predict(run, api_name="/status"))["state"] not in ("done", "failed"):
        time.sleep(0.5)
    assert status["state"] == "done", status["message"]
    result = client.predict(run, api_name="/result")
    assert result["measured_peak_bytes"] <= plan["budget_bytes"]


@pytest.mark.parametrize("data", ["/etc/passwd", "../secret.csv", "nothing"])
def test_no_other_file_of_the_machine_is_read(app, data):
    with pytest.raises(AppError, match="is no upload"):
        Client(app.url, verbose=False).predict(data, api_name="/check")


def test_a_wrong_name_is_one_sentence(app):
    client = Client(app.url, verbose=False)
    with pytest.raises(AppError, match="There is no run called nobody-1"):
        client.predict("nobody-1", api_name="/status")
    with pytest.raises(AppError, match="budget 'much'"):
        client.predict("requests to a shop (text)", budget="much", api_name="/plan")


def test_an_mcp_client_goes_from_check_to_result_with_tools_described(app, photos):
    async def talk():
        address = f"{app.url}/gradio_api/mcp/"
        async with streamable_http_client(address) as (reader, writer, *_), ClientSession(reader, writer) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}

            async def use(tool, **given):
                answer = await session.call_tool(names(tools)[tool], given)
                assert not answer.isError, answer.content
                return ast.literal_eval(answer.content[0].text)

            return tools, await road(use, upload(app, photos))

    with ThreadPoolExecutor(1) as thread:  # the browser tests keep an event loop in this one
        tools, (report, plan, result) = thread.submit(asyncio.run, talk()).result()
    assert set(names(tools)) == {"check", "plan", "train", "status", "result"}
    described = tools[names(tools)["plan"]]
    assert "memory budget" in described.description
    assert set(described.inputSchema["properties"]) == {"data", "backbone", "budget", "epochs", "batch_size"}
    assert report["info"]["source"] == "photos.zip"
    assert result["measured_peak_bytes"] <= plan["budget_bytes"]


async def road(use, data):
    """(report, plan, result), asking for one tool after the other."""
    report = await use("check", data=data)
    plan = await use("plan", data=data, budget="50%", epochs=1)
    run = (await use("train", plan=plan, data=data))["run"]
    while (status := await use("status", run=run))["state"] not in ("done", "failed"):
        await asyncio.sleep(0.5)
    assert status["state"] == "done", status["message"]
    return report, plan, await use("result", run=run)


def upload(app, path):
    """The name under which the app keeps an uploaded file."""
    with path.open("rb") as file:
        return httpx.post(f"{app.url}/gradio_api/upload", files={"files": file}).json()[0]


def names(tools):
    """Gradio puts the app's name before each tool's."""
    return {name.rpartition("_")[2]: name for name in tools}
