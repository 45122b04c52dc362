"""The web app: plain functions over the library, drawn with Gradio.  Nothing else in TaskIT imports gradio."""
